//! Which methods of the model were called, and in how many sequential rounds.

use parking_lot::Mutex;

/// One call of a method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// The method.
    pub name: &'static str,
    /// 1 for the calls that began before any other had ended; one more than the highest round of those that had ended.
    pub round: u32,
}

/// Records calls while it is on. Costs nothing otherwise.
#[derive(Debug, Default)]
pub(super) struct Journal(Mutex<Option<Page>>);

#[derive(Debug, Default)]
struct Page {
    /// Counts the pages, so that a call ends on the page on which it began.
    number: u64,
    calls: Vec<Call>,
    /// The highest round of a call that has ended.
    ended: u32,
}

impl Journal {
    /// Begins to record, and returns what was recorded before.
    pub(super) fn restart(&self) -> Vec<Call> {
        let mut page = self.0.lock();
        let number = page.as_ref().map_or(0, |page| page.number + 1);
        page.replace(Page { number, ..Page::default() }).map(|page| page.calls).unwrap_or_default()
    }

    pub(super) fn is_on(&self) -> bool {
        self.0.lock().is_some()
    }

    /// Records a call, which ends when the guard is dropped.
    pub(super) fn begin(&self, name: &'static str) -> Running<'_> {
        let mut page = self.0.lock();
        let place = page.as_mut().map(|page| {
            let round = page.ended + 1;
            page.calls.push(Call { name, round });
            (page.number, round)
        });
        Running { journal: self, place }
    }
}

/// A call that runs.
#[must_use]
pub(super) struct Running<'a> {
    journal: &'a Journal,
    /// The number of the page, and the round.
    place: Option<(u64, u32)>,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if let (Some(page), Some((number, round))) = (&mut *self.journal.0.lock(), self.place)
            && page.number == number
        {
            page.ended = page.ended.max(round);
        }
    }
}
