//! A cluster of whole nodes inside the test's process, over a network and stores that the test chooses.
//!
//! Invariant: a node's machine (its addresses, clock, data and the count of its starts) outlives the node,
//! as a machine outlives a process. Each node has a runtime of its own: ending that runtime is the crash.

use std::fs;
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use starling_client::{Client, ClientBuilder};
use starling_node::Config;
use starling_node::net::Network;
use starling_node::time::now;
use starling_ring::{Keyspace, PartitionerKind, ReplicationStrategy};
use tempfile::TempDir;
use tokio::time::sleep;

use crate::address::{self, ADMIN_PORT, INTERNODE_PORT, NATIVE_PORT};
use crate::cluster::{LOOK_EVERY, READY_WITHIN, sees_up};
use crate::faults::{Faults, FaultyNetwork};
use crate::machine::{Disk, Machine};
use crate::stepped_clock::SteppedClock;

/// The secret of every such cluster, so that a test can open the contexts it is given.
pub const SECRET: [u8; 32] = [7; 32];
/// The host number of the test's clients.
const CLIENT: u8 = 250;

/// See the module.
pub struct InProcess {
    machines: Vec<Machine>,
    addresses: address::Network,
    network: Arc<dyn Network>,
    faults: Faults,
    // Holds the data directories.
    _folder: TempDir,
}

impl InProcess {
    /// Machines over `network` that keep their data on `disk`; nothing runs yet. There is the keyspace
    /// `demo` with three replicas, or as many as there are machines.
    pub fn prepare(nodes: u8, network: Arc<dyn Network>, disk: Disk) -> InProcess {
        let addresses = address::Network::claim(nodes);
        let folder = tempfile::Builder::new().prefix("starling-test-").tempdir();
        let folder = folder.expect("the temporary folder can be written");
        let secret = folder.path().join("secret");
        write_secret(&secret);
        let faults = Faults::new();
        let began = now();
        let machines = (1..=nodes).map(|number| {
            let data_dir = folder.path().join(format!("node{number}"));
            let config = Config {
                cluster_name: "test".to_owned(),
                rack: format!("rack{number}"),
                secret_file: Some(secret.clone()),
                ..config(addresses, nodes, number, &data_dir)
            };
            let seen = faults.host(addresses.node(number).into(), network.clone());
            let clock = Arc::new(SteppedClock::new(began));
            Machine::new(number, config, Arc::new(seen), faults.clone(), clock, disk)
        });
        let machines = machines.collect();
        InProcess { machines, addresses, network, faults, _folder: folder }
    }

    /// [`InProcess::prepare`], and then all of them serve.
    ///
    /// # Panics
    /// If one does not.
    pub async fn start(nodes: u8, network: Arc<dyn Network>, disk: Disk) -> InProcess {
        InProcess::start_after(nodes, network, disk, |_| {}).await
    }

    /// [`InProcess::start`], once `prepare` has seen each machine.
    ///
    /// # Panics
    /// If one does not serve.
    pub async fn start_after(
        nodes: u8,
        network: Arc<dyn Network>,
        disk: Disk,
        prepare: impl Fn(&mut Machine),
    ) -> InProcess {
        let mut cluster = InProcess::prepare(nodes, network, disk);
        for machine in &mut cluster.machines {
            prepare(machine);
            machine.start().await;
        }
        for machine in &cluster.machines {
            machine.ready().await;
        }
        cluster.wait_until_up(usize::from(nodes)).await;
        cluster
    }

    /// A machine, from 1.
    pub fn node(&mut self, number: u8) -> &mut Machine {
        &mut self.machines[usize::from(number) - 1]
    }

    /// How many machines there are.
    pub fn nodes(&self) -> u8 {
        self.machines.last().map_or(0, Machine::number)
    }

    /// The address that tells a machine from others.
    pub fn host(&self, number: u8) -> IpAddr {
        self.addresses.node(number).into()
    }

    /// What may be cut.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// A network for a client of its own host, which can be cut off like any other.
    pub fn client_network(&self) -> FaultyNetwork {
        self.faults.host(self.host(CLIENT), self.network.clone())
    }

    /// A client yet to be configured that knows every machine.
    pub fn client_builder(&self) -> ClientBuilder {
        let builder = Client::builder().seams(Arc::new(self.client_network()));
        let native = |machine: &Machine| machine.config().listen.native.to_string();
        self.machines.iter().map(native).fold(builder, ClientBuilder::contact_point)
    }

    /// A client that knows every machine.
    ///
    /// # Panics
    /// If no node answers.
    pub async fn client(&self) -> Client {
        self.client_builder().build().await.expect("a node of the cluster answers")
    }

    /// A client that can talk to one machine only.
    ///
    /// # Panics
    /// If it does not answer.
    pub async fn client_of(&self, number: u8) -> Client {
        let network = self.client_network().only(self.host(number));
        let machine = &self.machines[usize::from(number) - 1];
        let address = machine.config().listen.native.to_string();
        let builder = Client::builder().seams(Arc::new(network)).contact_point(address);
        builder.build().await.expect("the node answers")
    }

    /// Cuts a machine off from the other machines, not from clients.
    pub fn isolate(&self, number: u8) {
        let others = self.machines.iter().map(Machine::number).filter(|other| *other != number);
        others.for_each(|other| self.faults.partition(self.host(number), self.host(other)));
    }

    /// Waits until every node believes that `up` nodes are up.
    ///
    /// # Panics
    /// If one does not in time.
    pub async fn wait_until_up(&self, up: usize) {
        for machine in self.machines.iter().filter(|machine| machine.is_running()) {
            self.wait_until_up_at(machine.number(), up).await;
        }
    }

    /// Waits until one node believes that `up` nodes are up.
    ///
    /// # Panics
    /// If it does not in time.
    pub async fn wait_until_up_at(&self, number: u8, up: usize) {
        let machine = &self.machines[usize::from(number) - 1];
        let until = now() + READY_WITHIN;
        loop {
            let overview = machine.overview();
            if sees_up(&overview, up) {
                return;
            }
            assert!(now() < until, "node {number} never sees {up} nodes up: {overview:?}");
            sleep(LOOK_EVERY).await;
        }
    }

    /// Waits until no running node owes another a write.
    ///
    /// # Panics
    /// If one still does in the end.
    pub async fn wait_until_settled(&self) {
        let until = now() + READY_WITHIN;
        for machine in self.machines.iter().filter(|machine| machine.is_running()) {
            while machine.overview().hints_pending > 0 {
                assert!(now() < until, "node {} keeps its hints", machine.number());
                sleep(LOOK_EVERY).await;
            }
        }
    }

    /// Stops all nodes in good order.
    pub async fn stop(&mut self) {
        for machine in &mut self.machines {
            if machine.is_running() {
                machine.stop().await;
            }
        }
    }
}

fn config(addresses: address::Network, nodes: u8, number: u8, data_dir: &Path) -> Config {
    let at = |number, port| (addresses.node(number), port).into();
    let mut config = Config::dev(data_dir);
    config.listen.native = at(number, NATIVE_PORT);
    config.listen.internode = at(number, INTERNODE_PORT);
    config.listen.admin = at(number, ADMIN_PORT);
    config.seeds = (1..=nodes).map(|seed| at(seed, INTERNODE_PORT)).collect();
    config.keyspaces = vec![Keyspace {
        name: "demo".to_owned(),
        strategy: ReplicationStrategy::Simple { replication_factor: nodes.min(3) },
        partitioner: PartitionerKind::default(),
        buckets: Default::default(),
    }];
    config
}

fn write_secret(path: &Path) {
    let mut file = fs::File::create(path).expect("the temporary folder can be written");
    let digits: String = SECRET.iter().map(|byte| format!("{byte:02x}")).collect();
    file.write_all(digits.as_bytes()).expect("the temporary folder can be written");
    let only_mine = fs::Permissions::from_mode(0o600);
    fs::set_permissions(path, only_mine).expect("the file is this test's");
}
