//! Requests that go to one peer together, and the wait for all of their answers.

use std::sync::Arc;

use parking_lot::Mutex;
use starling_protocol::Frame;
use tokio::sync::oneshot;

use super::link::{Late, Request};
use super::{Link, LinkError, ReplySink, Waiter};

/// See the module.
pub struct Window(Mutex<Answers>);

struct Answers {
    results: Vec<Option<Result<(), LinkError>>>,
    missing: usize,
    all: Option<oneshot::Sender<Vec<Result<(), LinkError>>>>,
}

impl Window {
    /// Requests in a window, at most.
    pub const SIZE_MAX: usize = 128;

    /// Sends requests and waits for all answers, which are in the same order.
    pub async fn send<'a>(
        link: &Link,
        requests: impl ExactSizeIterator<Item = Request<'a>>,
    ) -> Vec<Result<(), LinkError>> {
        let (window, answered) = Self::new(requests.len());
        for (place, request) in requests.enumerate() {
            link.send(&request, Self::waiter(&window, place));
        }
        // The sender lives in the window, which every pending answer keeps alive.
        answered.await.unwrap_or_default()
    }

    /// Who waits for the answer at `place`.
    ///
    /// # Panics
    /// If there is no such place.
    #[must_use]
    pub fn waiter(window: &Arc<Self>, place: usize) -> Waiter {
        let place = u8::try_from(place).expect("a window holds at most 128 requests");
        Waiter::new(window.clone(), place)
    }

    /// The window, and where its results will be.
    ///
    /// # Panics
    /// If it is larger than [`Self::SIZE_MAX`].
    pub fn new(size: usize) -> (Arc<Self>, oneshot::Receiver<Vec<Result<(), LinkError>>>) {
        assert!(size <= Self::SIZE_MAX, "{size} requests in one window");
        let (all, answered) = oneshot::channel();
        let answers = Answers { results: vec![None; size], missing: size, all: Some(all) };
        (Arc::new(Self(Mutex::new(answers))), answered)
    }

    /// Takes the one result of a request.
    pub fn settle(&self, place: usize, result: Result<(), LinkError>) {
        let mut answers = self.0.lock();
        answers.results[place] = Some(result);
        answers.missing -= 1;
        if answers.missing == 0
            && let Some(all) = answers.all.take()
        {
            let results = std::mem::take(&mut answers.results);
            // Whoever waits may have been stopped.
            let _stopped = all.send(results.into_iter().flatten().collect());
        }
    }
}

impl ReplySink for Window {
    fn reply(&self, place: u8, answer: Result<Frame, LinkError>) {
        self.settle(usize::from(place), answer.map(|_| ()));
    }

    fn late(&self, _place: u8, _late: Late) {}
}
