//! Pieces of work on a request's way, timed: `cargo bench -p ringraft`.

mod work;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn parser(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("parser");
    for work in work::WORKS {
        let mut step = (work.begin)();
        group.throughput(Throughput::Elements(work.operations));
        group.bench_function(work.name, |bencher| bencher.iter(&mut step));
    }
    group.finish();
}

criterion_group!(benches, parser);
criterion_main!(benches);
