//! Concurrent writes, as three real nodes keep them: each stays until a write that has seen it replaces
//! it, whichever nodes lead the writes, and whichever is away meanwhile.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use starling_client::CausalContext;
use starling_protocol::Level;
use starling_tests::setting::seed;
use starling_tests::{Cluster, Trio};

const BUCKET: &str = "demo.things";

async fn start() -> Trio {
    Trio::start(Cluster::builder(), BUCKET).await
}

/// Plays `script` on a new key and says which siblings are there after each step's quorum.
///
/// Steps, each with the node that leads it: `A1` puts "A" without context, `B2/A` puts "B" with the
/// context that step A returned, `-X3/A` deletes with it, `?R1` reads, whose context is R's then.
/// `!3` kills node 3, `^3` starts it again.
async fn play(trio: &mut Trio, key: &str, script: &str) -> Vec<String> {
    let mut contexts = BTreeMap::new();
    for step in script.split_whitespace() {
        let (step, seen) = step.split_once('/').map_or((step, None), |(s, of)| (s, Some(of)));
        let (name, node) = step.split_at(step.len() - 1);
        let node: u8 = node.parse().expect("a step ends with a node");
        let context = seen.map(|of| &contexts[of]);
        let returned = match &name[..1] {
            "!" => {
                trio.kill(node).await;
                continue;
            }
            "^" => {
                trio.restart(node).await;
                continue;
            }
            "?" => {
                let read = trio.at(node).get(key, Level::Quorum, None).await;
                read.map(|value| value.context)
            }
            "-" => trio.at(node).delete(key, Level::Quorum, context).await,
            _ => trio.at(node).put(key, name, Level::Quorum, context).await,
        };
        let returned = returned.unwrap_or_else(|error| panic!("{step} of {script}: {error}"));
        contexts.insert(name.trim_start_matches(['-', '?']).to_owned(), returned);
    }
    trio.shown(key, Level::Quorum).await
}

/// Plays each script on a key of its own; at a quorum, and once all replicas agree at each single one,
/// exactly the siblings are there that are expected.
async fn check(trio: &mut Trio, scripts: &[(&str, &[&str])]) {
    for (number, (script, expected)) in scripts.iter().enumerate() {
        let key = format!("{number}: {script}");
        assert_eq!(play(trio, &key, script).await, *expected, "at QUORUM after {script}");
        assert_eq!(trio.shown(&key, Level::All).await, *expected, "at ALL after {script}");
        assert_eq!(trio.shown(&key, Level::One).await, *expected, "at ONE after {script}");
    }
}

#[tokio::test]
async fn concurrent_puts_make_exactly_two_siblings_and_their_context_makes_one() {
    let mut trio = start().await;
    check(
        &mut trio,
        &[
            ("A1 B1", &["A", "B"]),
            ("A1 B2", &["A", "B"]),
            ("A3 B2 ?R1 C1/R", &["C"]),
            ("A1 B1 ?R2 C3/R", &["C"]),
            // Equal bytes of two puts are two siblings all the same.
            ("A1 A2", &["A", "A"]),
            ("A1 A1 ?R3 B1/R", &["B"]),
        ],
    )
    .await;
    // At the same moment, through every pair of nodes.
    for (key, one, other) in [("a", 1, 2), ("b", 2, 3), ("c", 3, 1)] {
        let mut second = trio.another_at(other).await;
        let (a, b) = tokio::join!(
            trio.at(one).put(key, "A", Level::Quorum, None),
            second.put(key, "B", Level::Quorum, None),
        );
        a.and(b).expect("all nodes are up");
        assert_eq!(trio.shown(key, Level::Quorum).await, ["A", "B"]);
        let read = trio.at(other).get(key, Level::Quorum, None).await.expect("all nodes are up");
        let put = trio.at(one).put(key, "C", Level::Quorum, Some(&read.context)).await;
        put.expect("all nodes are up");
        assert_eq!(trio.shown(key, Level::Quorum).await, ["C"]);
        assert_eq!(trio.shown(key, Level::All).await, ["C"]);
    }
}

#[tokio::test]
async fn a_stale_context_never_removes_what_it_did_not_see() {
    let mut trio = start().await;
    check(
        &mut trio,
        &[
            // A put's own context has not seen what stood beside it, not even at its own leader.
            ("A1 B1 C1/B", &["A", "C"]),
            ("A1 B1 C2/A", &["B", "C"]),
            ("A1 B2 C3/A D1/B", &["C", "D"]),
            // What replaced the value that was seen is not seen.
            ("A1 B2/A C3/A", &["B", "C"]),
            ("A1 ?R2 B1/R C1/R D1/R", &["B", "C", "D"]),
            ("A1 B2 ?R3 C1 D2/R", &["C", "D"]),
            ("?R1 A1 B2/R", &["A", "B"]),
            ("A1 B2 ?R3 C3 -X1/R", &["C"]),
            // What was deleted is not seen to be written again.
            ("A1 -X2/A B3/A", &["B"]),
            ("A1 -X2/A B1/X C3/A", &["B", "C"]),
            ("A1 ?R1 -X2 B3 -Y1/R", &["B"]),
            // With a node that dies and comes back between, as leader and as replica.
            ("A1 !1 B2 ^1 C1/A", &["B", "C"]),
            ("A1 B1 !1 C2/A ^1 D1/C", &["B", "D"]),
            ("A3 !3 B1/A ^3 C3/A D3", &["B", "C", "D"]),
            ("A2 ?R2 !2 B1/A C3 ^2 -X2/R", &["B", "C"]),
        ],
    )
    .await;
}

/// A model says what must be there: each write removes exactly what its context has seen. Random puts,
/// deletes and reads, random leaders, contexts of any age, and now and then a node that dies or returns.
#[tokio::test]
async fn random_histories_keep_exactly_what_no_context_has_seen() {
    const STEPS: u32 = 600;
    let mut random = StdRng::seed_from_u64(seed());
    let mut trio = start().await;
    let mut keys: BTreeMap<String, Model> = BTreeMap::new();
    for step in 0..STEPS {
        if step % 60 == 59 {
            match trio.down().first() {
                Some(number) => trio.restart(*number).await,
                None => trio.kill(random.random_range(1..=3)).await,
            }
        }
        let key = format!("key{}", random.random_range(0..8));
        let model = keys.entry(key.clone()).or_default();
        model.step(&mut random, &mut trio, &key, &format!("{step}")).await;
    }
    for number in trio.down() {
        trio.restart(number).await;
    }
    for (key, model) in &keys {
        for level in [Level::Quorum, Level::All, Level::One] {
            assert_eq!(trio.shown(key, level).await, model.live(), "{key} at {level:?}");
        }
    }
}

/// One key: which writes its contexts have seen, and which values stand.
#[derive(Default)]
struct Model {
    live: Vec<String>,
    contexts: Vec<(CausalContext, Vec<String>)>,
}

impl Model {
    fn live(&self) -> Vec<String> {
        let mut live = self.live.clone();
        live.sort();
        live
    }

    async fn step(&mut self, random: &mut StdRng, trio: &mut Trio, key: &str, value: &str) {
        let up = trio.up();
        let session = trio.at(up[random.random_range(0..up.len())]);
        let old = random.random_range(0..=self.contexts.len());
        let (context, seen) = self.contexts.get(old).cloned().unzip();
        let mut seen = seen.unwrap_or_default();
        let returned = match random.random_range(0..10) {
            0..4 => {
                let read = session.get(key, Level::Quorum, context.as_ref()).await;
                let read = read.expect("a quorum is up");
                let mut shown: Vec<_> =
                    read.siblings.iter().map(|value| String::from_utf8_lossy(value)).collect();
                shown.sort();
                assert_eq!(shown, self.live(), "{key} before {value}");
                // Everything so far, as each earlier write is in some context.
                let known = self.contexts.iter().flat_map(|(_, seen)| seen.iter().cloned());
                seen = known.chain(self.live.iter().cloned()).collect();
                seen.sort();
                seen.dedup();
                read.context
            }
            4..5 => {
                let deleted = session.delete(key, Level::Quorum, context.as_ref()).await;
                if context.is_none() {
                    seen.clone_from(&self.live);
                }
                self.live.retain(|value| !seen.contains(value));
                deleted.expect("a quorum is up")
            }
            _ => {
                let put = session.put(key, value, Level::Quorum, context.as_ref()).await;
                self.live.retain(|value| !seen.contains(value));
                self.live.push(value.to_owned());
                seen.push(value.to_owned());
                put.expect("a quorum is up")
            }
        };
        self.contexts.push((returned, seen));
    }
}
