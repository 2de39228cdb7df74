//! Faults on demand. A test orders them; the server carries them out.

use std::collections::VecDeque;
use std::time::Duration;

use parking_lot::Mutex;

use crate::notice::Face;

/// What goes wrong with one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The request is answered with this, whatever it contains. It is not taken.
    Status {
        /// 200 to 599.
        status: u16,
        /// Names in lower case, and values.
        headers: Vec<(String, String)>,
        /// The body.
        body: String,
    },
    /// GOAWAY (NO_ERROR) whose last stream is below this request: the request was certainly not taken. Requests below it are still
    /// answered. The connection closes when the client closes it, at the latest after 2 s.
    GoAway,
    /// RST_STREAM (REFUSED_STREAM) before the body is read: the request was certainly not taken.
    RefusedStream,
    /// RST_STREAM (INTERNAL_ERROR) after the body was read: the client cannot know whether the request was taken.
    ResetAfterBody(Delivery),
    /// The connection is cut after the body was read. Other requests on the connection are lost with it.
    CloseBeforeAnswer(Delivery),
    /// No answer until the client gives up or the sandbox is dropped.
    Silence(Delivery),
    /// The request is taken at once, and answered after this time.
    Delay(Duration),
}

/// Whether a request without an answer was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// The request is checked and, if it is right, taken: the ledger contains the notice.
    Delivered,
    /// The request is dropped without a check.
    Lost,
}

impl Fault {
    /// An answer with a status and a body, without further headers.
    #[must_use]
    pub fn status(status: u16, body: &str) -> Self {
        Self::Status { status, headers: Vec::new(), body: body.to_owned() }
    }
}

/// The faults that were ordered and did not happen yet.
#[derive(Debug, Default)]
pub(crate) struct FaultPlan {
    faces: Mutex<[FacePlan; Face::COUNT]>,
}

#[derive(Debug, Default)]
struct FacePlan {
    /// Faults of the next requests, each with the number of requests.
    next: VecDeque<(Fault, usize)>,
    /// The fault of all other requests.
    all: Option<Fault>,
}

impl FaultPlan {
    pub(crate) fn fail_next(&self, face: Face, fault: Fault, times: usize) {
        if times > 0 {
            self.faces.lock()[face.index()].next.push_back((fault, times));
        }
    }

    pub(crate) fn set_all(&self, face: Face, fault: Fault) {
        self.faces.lock()[face.index()].all = Some(fault);
    }

    pub(crate) fn clear(&self, face: Face) {
        self.faces.lock()[face.index()] = FacePlan::default();
    }

    /// The fault of the request that begins now.
    pub(crate) fn take(&self, face: Face) -> Option<Fault> {
        let plan = &mut self.faces.lock()[face.index()];
        let Some((fault, left)) = plan.next.front_mut() else { return plan.all.clone() };
        let fault = fault.clone();
        *left -= 1;
        if *left == 0 {
            plan.next.pop_front();
        }
        Some(fault)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_of_the_next_requests_come_in_order_and_before_the_fault_of_all() {
        let plan = FaultPlan::default();
        plan.set_all(Face::Fcm, Fault::RefusedStream);
        plan.fail_next(Face::Fcm, Fault::GoAway, 2);
        plan.fail_next(Face::Fcm, Fault::status(500, ""), 1);
        plan.fail_next(Face::Fcm, Fault::GoAway, 0);
        assert_eq!(plan.take(Face::Apns), None, "another face");
        let expected = [Fault::GoAway, Fault::GoAway, Fault::status(500, ""), Fault::RefusedStream];
        for fault in expected {
            assert_eq!(plan.take(Face::Fcm), Some(fault));
        }
        assert_eq!(plan.take(Face::Fcm), Some(Fault::RefusedStream));
        plan.clear(Face::Fcm);
        assert_eq!(plan.take(Face::Fcm), None);
    }
}
