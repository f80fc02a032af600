//! The dots that a cluster has minted, as clients and stores tell of them.
//!
//! Invariant: a dot names one write for ever. Whoever tells of a dot that another write has already panics.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use bytes::Bytes;
use starling_client::CausalContext;
use starling_protocol::ContextToken;
use starling_ring::ClusterSecret;
use starling_storage::context_token::{self, TokenKey};
use starling_storage::keys::{self, table_id};
use starling_storage::values::{Actor, Causal, Context, Dot};
use starling_storage::{Family, Store};

use crate::in_process::SECRET;

/// See the module.
#[derive(Debug, Default)]
pub struct Dots(BTreeMap<Dot, String>);

impl Dots {
    /// Takes note of the acknowledgement of a put without a context to a key that was put once. Returns
    /// its dot.
    ///
    /// # Panics
    /// If another put has the dot.
    pub fn acknowledged(&mut self, bucket: &str, key: &str, context: &CausalContext) -> Dot {
        let seen = opened(bucket, key, context);
        // An earlier attempt that another node led has its own dot, which the one that succeeded replaces.
        for (actor, seqs) in seen.iter() {
            self.note(Dot { actor, seq: seqs.max() }, key);
        }
        let whole = seen.iter().find(|(_, seqs)| seqs.contains(1));
        let (actor, seqs) = whole.or(seen.iter().next()).expect("a put has seen itself");
        Dot { actor, seq: seqs.max() }
    }

    /// Takes note of every value that a store holds of a bucket, acknowledged or not.
    ///
    /// # Panics
    /// If two keys have one dot, in this store or in another.
    pub fn stored(&mut self, store: &dyn Store, bucket: &str) {
        let table = table_id(bucket);
        let (start, end) = (table.to_be_bytes(), (table + 1).to_be_bytes());
        let scanned = store.scan(Family::Data, &start, &end, &mut |key, state| {
            let key = keys::decode(key).expect("stores hold storage keys").partition_key;
            let key = String::from_utf8_lossy(key);
            let state = Causal::decode(Bytes::copy_from_slice(state)).expect("stores hold states");
            state.siblings().for_each(|(dot, _)| self.note(dot, &key));
            ControlFlow::Continue(())
        });
        scanned.expect("the store can be read");
    }

    /// The actors that minted, in no order of time.
    pub fn actors(&self) -> Vec<Actor> {
        let mut actors: Vec<_> = self.0.keys().map(|dot| dot.actor).collect();
        actors.dedup();
        actors
    }

    /// How many dots are known.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    fn note(&mut self, dot: Dot, key: &str) {
        let known = self.0.entry(dot).or_insert_with(|| key.to_owned());
        assert_eq!(known, key, "{dot} was minted twice");
    }
}

/// Whether a context covers a dot.
pub fn covers(bucket: &str, key: &str, context: &CausalContext, dot: Dot) -> bool {
    opened(bucket, key, context).contains(dot)
}

fn opened(bucket: &str, key: &str, context: &CausalContext) -> Context {
    let token = ContextToken::from_text(&context.to_text()).expect("it was written as text");
    let secret = TokenKey(ClusterSecret(SECRET).token_mac_key());
    let opened = context_token::open(&secret, table_id(bucket), key.as_bytes(), &token.0);
    opened.expect("the cluster sealed it under its secret")
}
