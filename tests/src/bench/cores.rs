//! Half of the cores for the nodes and half for those who load them: what clients do must cost the nodes nothing.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The two halves. Threads and processes that a thread starts have its cores.
#[derive(Clone, Copy, Debug)]
pub struct Cores {
    nodes: CpuSet,
    clients: CpuSet,
}

impl Cores {
    /// Nothing on a machine with one core, or that does not let it.
    pub fn halves() -> Option<Cores> {
        let all = sched_getaffinity(None).ok()?;
        let usable: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|core| all.is_set(*core)).collect();
        let (nodes, clients) = usable.split_at(usable.len() / 2);
        if nodes.is_empty() {
            return None;
        }
        let set = |cores: &[usize]| {
            let mut set = CpuSet::new();
            cores.iter().for_each(|core| set.set(*core));
            set
        };
        Some(Cores { nodes: set(nodes), clients: set(clients) })
    }

    /// This thread, and what it starts, runs where the nodes do.
    pub fn be_a_node(&self) {
        sched_setaffinity(None, &self.nodes).expect("a thread may choose among its cores");
    }

    /// This thread, and what it starts, runs where the clients do.
    pub fn be_a_client(&self) {
        sched_setaffinity(None, &self.clients).expect("a thread may choose among its cores");
    }
}
