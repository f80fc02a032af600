//! The specification: explicit causal histories. Every write is an event; a state is the events it has seen and those among them that nobody
//! has replaced. No dots, no intervals, no vouching, so none of their mistakes.

/// A write, by its number in the trace.
pub type Event = u32;

/// A set of events, one bit each: a trace stops before it has more than [`EVENTS_MAX`].
pub type Events = u128;

pub const EVENTS_MAX: Event = 120;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct History {
    pub seen: Events,
    pub live: Events,
}

pub fn only(event: Event) -> Events {
    1 << event
}

pub fn list(events: Events) -> Vec<Event> {
    (0..Events::BITS).filter(|event| events & only(*event) != 0).collect()
}

impl History {
    /// The write `event` by a client that has seen `client`; `is_live` unless it is a delete.
    pub fn write(client: Events, event: Event, is_live: bool) -> History {
        History { seen: client | only(event), live: if is_live { only(event) } else { 0 } }
    }

    /// An event stays live if both have it so, or if one has and the other has not seen it.
    pub fn join(self, other: History) -> History {
        History {
            seen: self.seen | other.seen,
            live: (self.live & other.live) | (self.live & !other.seen) | (other.live & !self.seen),
        }
    }
}
