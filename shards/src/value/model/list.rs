//! Lists beside vectors.

use super::super::list::{End, List, ListMut};
use super::super::pack::record_bytes;
use super::{Alone, Chance, Modelled, Place, Tendency, Value, check_account};
use crate::value::{Limits, ValueType};

/// A list beside a vector.
pub(super) struct Lists {
    place: Alone,
    model: Vec<Vec<u8>>,
}

impl Lists {
    fn list(&self) -> List<'_> {
        List::new(self.place.stored())
    }
}

impl Modelled for Lists {
    const TYPE: ValueType = ValueType::List;
    type Model = Vec<Vec<u8>>;

    fn new(limits: Limits) -> Lists {
        Lists { place: Alone::new(limits), model: Vec::new() }
    }

    fn change(&mut self, chance: &mut Chance<'_>, tendency: Tendency) {
        let (mut list, model) = (ListMut::new(&mut self.place), &mut self.model);
        let count = model.len() as u64;
        let element = chance.element(5000);
        let at = chance.below(count + 1);
        match chance.below(if tendency == Tendency::Grows { 8 } else { 14 }) {
            0..2 => {
                list.push(End::Back, &element);
                model.push(element);
            }
            2..4 => {
                list.push(End::Front, &element);
                model.insert(0, element);
            }
            4..6 => {
                list.insert(at, &element);
                model.insert(at as usize, element);
            }
            6 if at < count => {
                list.set(at, &element);
                model[at as usize] = element;
            }
            7 if chance.below(50) == 0 => {
                let most = if chance.below(3) == 0 { count + 1 } else { 60 };
                let gone = chance.below(most).min(count - at);
                list.remove(at, gone);
                model.drain(at as usize..(at + gone) as usize);
            }
            8..10 => assert_eq!(list.pop(End::Back), model.pop()),
            10..12 => {
                let first = (!model.is_empty()).then(|| model.remove(0));
                assert_eq!(list.pop(End::Front), first);
            }
            _ if at < count => {
                list.remove(at, 1);
                model.remove(at as usize);
            }
            _ => {}
        }
    }

    fn glance(&self, chance: &mut Chance<'_>) {
        assert_eq!(self.list().count(), self.model.len() as u64);
        let at = chance.below(self.model.len() as u64 + 1);
        let found = self.list().get(at).map(<[u8]>::to_vec);
        assert_eq!(found.as_ref(), self.model.get(at as usize));
    }

    fn model(&self) -> &Vec<Vec<u8>> {
        &self.model
    }

    fn value(&self) -> Value<'_> {
        Value::List(self.list())
    }

    fn place(self) -> Alone {
        self.place
    }

    fn check(value: Value<'_>, model: &Vec<Vec<u8>>, chance: &mut Chance<'_>) {
        let Value::List(list) = value else { unreachable!("it is a list") };
        assert_eq!(list.count(), model.len() as u64);
        for at in [0, chance.below(model.len() as u64 + 1)] {
            let rest = model[at as usize..].iter().map(|element| &element[..]);
            assert!(list.elements_from(at).eq(rest), "from {at}");
        }
        for at in [u64::MAX, chance.below(model.len() as u64 + 1)] {
            let first = &model[..model.len().min(at.saturating_add(1) as usize)];
            let back = first.iter().rev().map(|element| &element[..]);
            assert!(list.elements_back_from(at).eq(back), "back from {at}");
        }
        check_account(list.stored, &[model.iter().map(|element| record_bytes(&[element])).sum()]);
    }
}
