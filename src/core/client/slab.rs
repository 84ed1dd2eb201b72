//! Things with a stable small number: connections, gathers, disk operations.

/// A vector with holes that are used again.
#[derive(Debug)]
pub struct Slab<T> {
    places: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Default for Slab<T> {
    fn default() -> Slab<T> {
        Slab { places: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slab<T> {
    /// Keeps a thing and returns its number.
    pub fn insert(&mut self, thing: T) -> u32 {
        if let Some(index) = self.free.pop() {
            self.places[index as usize] = Some(thing);
            index
        } else {
            self.places.push(Some(thing));
            (self.places.len() - 1) as u32
        }
    }

    /// Gives a thing up; its number may be used again. Panics when there is none.
    pub fn remove(&mut self, index: u32) -> T {
        self.free.push(index);
        self.places[index as usize].take().expect("a number is removed once")
    }

    /// The thing with this number, if there is one.
    #[inline(always)]
    pub fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        self.places.get_mut(index as usize)?.as_mut()
    }

    /// The thing with this number, if there is one.
    #[inline(always)]
    pub fn get(&self, index: u32) -> Option<&T> {
        self.places.get(index as usize)?.as_ref()
    }

    /// The thing with this number. Panics when there is none.
    #[inline(always)]
    pub fn at_mut(&mut self, index: u32) -> &mut T {
        self.places[index as usize].as_mut().expect("a number in use")
    }

    /// The thing with this number. Panics when there is none.
    #[inline(always)]
    pub fn at(&self, index: u32) -> &T {
        self.places[index as usize].as_ref().expect("a number in use")
    }

    /// All things and their numbers, in the order of the numbers.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        let places = self.places.iter().enumerate();
        places.filter_map(|(index, place)| Some((index as u32, place.as_ref()?)))
    }

    /// All things and their numbers, in the order of the numbers.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (u32, &mut T)> {
        let places = self.places.iter_mut().enumerate();
        places.filter_map(|(index, place)| Some((index as u32, place.as_mut()?)))
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.places.len() - self.free.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_stable_and_used_again() {
        let mut slab = Slab::default();
        let (a, b) = (slab.insert('a'), slab.insert('b'));
        assert_eq!(slab.remove(a), 'a');
        assert_eq!((slab.get(a), slab.get(b), slab.count()), (None, Some(&'b'), 1));
        assert_eq!(slab.insert('c'), a);
        assert_eq!(slab.iter().map(|(_, c)| *c).collect::<String>(), "cb");
    }
}
