//! Merging gossiped states is a join: whatever arrives in whatever order, how often ever, a reader
//! ends where it would be had it read the newest state alone, and never goes back on the way.

use proptest::collection::vec;
use proptest::prelude::{ProptestConfig, Strategy, any, prop_oneof};
use proptest::{prop_assert, prop_assert_eq, proptest};
use rand::SeedableRng;
use rand::rngs::StdRng;
use starling_ring::detector::Millis;
use starling_ring::gossip::{
    Boot, Delta, Digest, Effect, Event, Gossip, GossipConfig, Key, Message, NodeState, Shared,
};
use starling_ring::{ClusterId, HostId};
use uuid::Uuid;

const OWNER: u16 = 0;
const READER: u16 = 1;

fn host(place: u16) -> HostId {
    HostId(Uuid::from_u128(u128::from(place)))
}

fn shared() -> Shared {
    Shared { cluster_id: ClusterId([1; 16]), wire_version: 1, slot_bits: 12, epoch: 1 }
}

fn node(me: u16, boot: Boot) -> Gossip {
    Gossip::new(GossipConfig {
        members: (0..3).map(host).collect(),
        me,
        incarnation: boot.incarnation,
        boot_nonce: boot.nonce,
        shared: shared(),
        seeds: vec![0],
    })
}

fn step(node: &mut Gossip, event: Event) -> Vec<Effect> {
    let mut out = Vec::new();
    node.step(Millis(0), event, &mut StdRng::seed_from_u64(0), &mut out);
    out
}

/// What happens to the owner.
#[derive(Debug, Clone)]
enum Deed {
    Says(Key, u8),
    Beats,
    Restarts,
}

fn deed() -> impl Strategy<Value = Deed> {
    let key = prop_oneof![
        proptest::strategy::Just(Key::Status),
        proptest::strategy::Just(Key::Load),
        proptest::strategy::Just(Key::Fence)
    ];
    prop_oneof![
        4 => (key, any::<u8>()).prop_map(|(key, value)| Deed::Says(key, value)),
        3 => proptest::strategy::Just(Deed::Beats),
        1 => proptest::strategy::Just(Deed::Restarts),
    ]
}

/// The owner after each of its deeds.
fn history(deeds: &[Deed]) -> Vec<Gossip> {
    let boot = |incarnation| Boot { incarnation, nonce: incarnation * 11 };
    let mut incarnation = 250;
    let mut owner = node(OWNER, boot(incarnation));
    let mut history = vec![owner.clone()];
    for (nth, deed) in deeds.iter().enumerate() {
        match deed {
            Deed::Says(key, value) => {
                let event = Event::SetLocal { key: *key, value: vec![*value], urgent: false };
                step(&mut owner, event);
            }
            Deed::Beats => {
                let now = Millis(1_000 * (nth as u64 + 1));
                owner.step(now, Event::Tick, &mut StdRng::seed_from_u64(0), &mut Vec::new());
            }
            Deed::Restarts => {
                incarnation += 1;
                owner = node(OWNER, boot(incarnation));
            }
        }
        history.push(owner.clone());
    }
    history
}

fn state(node: &Gossip) -> NodeState {
    node.state(host(OWNER)).expect("the owner is a member").clone()
}

fn digest(state: &NodeState) -> Digest {
    Digest {
        incarnation_lo: state.incarnation.to_le_bytes()[0],
        heartbeat_lo: u16::try_from(state.heartbeat).expect("histories are short"),
        version: state.version,
    }
}

/// What `owner` tells a reader that has come as far as `read`.
fn told(owner: &Gossip, read: Digest) -> Delta {
    let nothing = Digest { incarnation_lo: 0, heartbeat_lo: 0, version: 0 };
    let message = Message::Syn {
        shared: shared(),
        boot: Boot { incarnation: 1, nonce: 1 },
        digests: vec![read, nothing, nothing],
    };
    let effects = step(&mut owner.clone(), Event::Received { from: host(READER), message });
    let [Effect::Send { message: Message::SynAck { delta, .. }, .. }] = effects.as_slice() else {
        panic!("a Syn is answered: {effects:?}");
    };
    delta.clone()
}

fn read(reader: &mut Gossip, delta: Delta) -> Vec<Effect> {
    let message = Message::Ack { shared: shared(), delta };
    step(reader, Event::Received { from: host(OWNER), message })
}

fn order(state: &NodeState) -> (u64, u32, u32) {
    (state.incarnation, state.version, state.heartbeat)
}

/// The values alone: heartbeats also travel by digest.
fn values(state: &NodeState) -> Vec<Option<&[u8]>> {
    [Key::Status, Key::Load, Key::Fence].into_iter().map(|key| state.value(key)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    /// Full and partial states, shuffled and repeated: never back, never a hole; and after one
    /// exchange with the owner, the same as the owner.
    #[test]
    fn merging_is_a_join(
        deeds in vec(deed(), 1..24),
        deliveries in vec((any::<proptest::sample::Index>(), any::<proptest::sample::Index>()), 0..40),
    ) {
        let history = history(&deeds);
        let states: Vec<NodeState> = history.iter().map(state).collect();
        let mut reader = node(READER, Boot { incarnation: 1, nonce: 1 });
        for (to, from) in &deliveries {
            let owner = &history[to.index(history.len())];
            let since = &states[from.index(states.len())];
            let before = state(&reader);
            read(&mut reader, told(owner, digest(since)));
            let after = state(&reader);
            prop_assert!(order(&after) >= order(&before), "{before:?} -> {after:?}");
            let same = states.iter().find(|known| {
                (known.incarnation, known.version) == (after.incarnation, after.version)
            });
            prop_assert!(after.version == 0 || same.map(values) == Some(values(&after)), "a hole: {after:?}");
        }
        let newest = history.last().expect("a history has a beginning");
        let known = digest(&state(&reader));
        read(&mut reader, told(newest, known));
        let (read, said) = (state(&reader), state(newest));
        prop_assert_eq!((read.incarnation, read.version), (said.incarnation, said.version));
        prop_assert_eq!(values(&read), values(&said));
    }

    /// Two orders of the same full states end in the same state, and a second time changes nothing.
    #[test]
    fn merging_is_commutative_and_idempotent(
        deeds in vec(deed(), 1..24),
        picks in vec(any::<proptest::sample::Index>(), 1..12),
    ) {
        let history = history(&deeds);
        let unread = Digest { incarnation_lo: 0, heartbeat_lo: 0, version: 0 };
        let deltas: Vec<Delta> =
            picks.iter().map(|pick| told(&history[pick.index(history.len())], unread)).collect();
        let mut forwards = node(READER, Boot { incarnation: 1, nonce: 1 });
        let mut backwards = forwards.clone();
        for delta in &deltas {
            read(&mut forwards, delta.clone());
        }
        for delta in deltas.iter().rev() {
            read(&mut backwards, delta.clone());
        }
        prop_assert_eq!(state(&forwards), state(&backwards));
        for delta in deltas {
            let effects = read(&mut forwards, delta);
            let news = effects.iter().any(|effect| matches!(effect, Effect::StateChanged(_) | Effect::Heartbeat(_)));
            prop_assert!(!news, "{effects:?}");
        }
        prop_assert_eq!(state(&forwards), state(&backwards));
    }

    /// Whatever a peer sends: no panic, no value beyond the bound, no word about this node itself.
    #[test]
    fn nonsense_is_survived(
        incarnation in prop_oneof![0..3_u64, any::<u64>()],
        heartbeat in any::<u32>(),
        after in prop_oneof![0..3_u32, any::<u32>()],
        version in prop_oneof![0..5_u32, any::<u32>()],
        values in vec((proptest::strategy::Just(Key::Load), any::<u32>(), vec(any::<u8>(), 0..4)), 0..3),
        index in prop_oneof![0..4_u16, any::<u16>()],
        digests in 0..6_usize,
    ) {
        let delta = vec![starling_ring::gossip::NodeDelta {
            index, incarnation, boot_nonce: 0, heartbeat, after, version, values,
        }];
        let digest = Digest { incarnation_lo: 1, heartbeat_lo: 9, version };
        let mut reader = node(READER, Boot { incarnation: 1, nonce: 1 });
        let message = Message::SynAck { shared: shared(), digests: vec![digest; digests], delta };
        step(&mut reader, Event::Received { from: host(OWNER), message });
        let me = reader.state(host(READER)).expect("the reader is a member");
        prop_assert_eq!(order(me), (1, 1, 0));
    }
}
