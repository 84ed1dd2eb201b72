//! The engine's pieces of work, timed: `cargo bench -p ringraft-shards`.

mod work;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn engine(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("engine");
    for work in work::WORKS {
        let mut step = (work.begin)();
        group.throughput(Throughput::Elements(work.operations));
        group.bench_function(work.name, |bencher| bencher.iter(&mut step));
    }
    group.finish();
}

criterion_group!(benches, engine);
criterion_main!(benches);
