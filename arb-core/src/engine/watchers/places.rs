//! Where the watcher of a slot is. Slots are given out in ascending order by ourselves, and seldom come back:
//! a table of pages, which neighbours share, needs no hash and half the memory of one with hashes.
use crate::ids::Slot;
use alloc::boxed::Box;
use core::num::NonZeroU32;
use hashbrown::HashMap;

/// Slots that share a page.
const ON_PAGE: usize = 256;

/// Places by slot.
#[derive(Debug, Default)]
pub(super) struct Places {
    pages: HashMap<u32, Box<Page>>,
}

#[derive(Debug)]
struct Page {
    taken: u32,
    /// One more than the place.
    places: [Option<NonZeroU32>; ON_PAGE],
}

/// The number of a slot's page, and where the slot is on it.
fn page_of(slot: Slot) -> (u32, usize) {
    let [page @ .., on_page] = slot.0.to_be_bytes();
    let [high, middle, low] = page;
    (u32::from_be_bytes([0, high, middle, low]), usize::from(on_page))
}

impl Page {
    fn set(&mut self, on_page: usize, place: Option<u32>) {
        let place = place.and_then(|place| NonZeroU32::new(place.wrapping_add(1)));
        let Some(known) = self.places.get_mut(on_page) else { return };
        let before = core::mem::replace(known, place);
        let taken = self.taken.saturating_add(u32::from(place.is_some()));
        self.taken = taken.saturating_sub(u32::from(before.is_some()));
    }
}

impl Places {
    pub(super) fn get(&self, slot: Slot) -> Option<u32> {
        let (page, on_page) = page_of(slot);
        let place = *self.pages.get(&page)?.places.get(on_page)?;
        place?.get().checked_sub(1)
    }

    /// The places of these slots, one after the other from `first` on; quickest in ascending order.
    pub(super) fn set_all(&mut self, first: u32, slots: impl IntoIterator<Item = Slot>) {
        let mut places = (first..).zip(slots).peekable();
        while let Some(&(_, Slot(slot))) = places.peek() {
            let (number, _) = page_of(Slot(slot));
            let page = self
                .pages
                .entry(number)
                .or_insert_with(|| Box::new(Page { taken: 0, places: [None; ON_PAGE] }));
            while let Some((place, slot)) = places.next_if(|(_, slot)| page_of(*slot).0 == number) {
                page.set(page_of(slot).1, Some(place));
            }
        }
    }

    pub(super) fn set(&mut self, slot: Slot, place: u32) {
        self.set_all(place, [slot]);
    }

    pub(super) fn remove(&mut self, slot: Slot) {
        let (number, on_page) = page_of(slot);
        if let Some(page) = self.pages.get_mut(&number) {
            page.set(on_page, None);
            if page.taken == 0 {
                self.pages.remove(&number);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_is_found_and_an_empty_page_goes() {
        let mut places = Places::default();
        let slots = [0, 1, 255, 256, 511, 70_000, u32::MAX].map(Slot);
        places.set_all(5, slots);
        let found = |places: &Places| slots.map(|slot| places.get(slot));
        assert_eq!(found(&places), [5, 6, 7, 8, 9, 10, 11].map(Some));
        assert_eq!([2, 257, 69_999, u32::MAX - 1].map(|slot| places.get(Slot(slot))), [None; 4]);
        places.set(Slot(1), 0);
        places.remove(Slot(0));
        places.remove(Slot(70_000));
        places.remove(Slot(70_000));
        places.remove(Slot(70_001));
        let expected = [None, Some(0), Some(7), Some(8), Some(9), None, Some(11)];
        assert_eq!(found(&places), expected);
        assert_eq!(places.pages.len(), 3, "one page held 70,000 alone");
        slots.into_iter().for_each(|slot| places.remove(slot));
        assert_eq!(places.pages.len(), 0);
    }
}
