//! Making a cluster.

use std::net::SocketAddr;
use std::sync::Arc;

use racimo_common::id::{ClusterId, NetworkId, NodeId, RandomId};
use racimo_common::object::{NodeDescription, Role};
use racimo_common::tls;
use racimo_common::units::{Bytes, NanoCpus};
use ring::rand::{SecureRandom, SystemRandom};

use super::super::address::{self, Machine, Told};
use super::super::keep::{self, Own};
use super::super::moves::{self, Shown};
use super::running::bind;
use super::{Manager, failed, machine, no_random};
use crate::api::control::{ControlError, InitRequest};
use crate::api::host::Host;
use crate::ca::{Ca, JoinTokens, kept};
use crate::store::{Change, CommitError, NewCluster, NewNode, NodeSpec, Refusal};
use crate::vault::unlock::UnlockKey;

impl Manager {
    pub(super) async fn init(self, request: InitRequest) -> Result<NodeId, ControlError> {
        let _turn = self.0.turn.lock().await;
        if self.0.store.view().state.cluster().is_some() {
            return Err(ControlError::AlreadyIn);
        }
        let machine = machine()?;
        let listen = address::listen(&request.listen, &machine).map_err(ControlError::Invalid)?;
        let said = request.advertise.unwrap_or_default();
        let advertise = self.advertise(&said, listen, &machine).await?;
        let listener = bind(listen)?;
        let now = self.0.clock.now().wall;
        let rng = SystemRandom::new();
        let (cluster, node) = (ClusterId::from_bits(bits(&rng)?), NodeId::from_bits(bits(&rng)?));
        let ca = Ca::create(cluster, now.max(tls::BUILT), &rng).map_err(|error| failed("make the root", &error))?;
        let tokens = JoinTokens::draw(ca.root_digest(), &rng).map_err(|_| no_random())?;
        let here = address::is_here(&advertise, &machine);
        let (ip, notice) = (advertise.ip.to_string(), address::foreign(&advertise, listen, &machine));
        let own = Own { cluster, node, listen: request.listen, advertise: Some(said), here, restored: false };
        keep::store_own(&self.0.data, &own).map_err(|error| failed("keep which node this is", &error))?;
        let vault_key = self.make_vault_key()?;
        self.0.vault.unlock(&vault_key).map_err(|error| failed("use the vault's key", &error))?;
        let vault = &self.0.vault;
        let [worker_secret, manager_secret] =
            tokens.seal(vault).map_err(|error| failed("seal the join tokens", &error))?;
        let root_key = kept::seal_key(vault, &ca).map_err(|error| failed("seal the root's key", &error))?;
        let autolock = request.spec.autolock;
        let new_cluster = NewCluster {
            id: cluster,
            spec: request.spec,
            root_pem: ca.root_pem(),
            worker_secret,
            manager_secret,
            managers: advertise.managers,
            net: request.net,
            key: Some(root_key),
            ingress: NetworkId::from_bits(bits(&rng)?),
        };
        let new_node = NewNode {
            id: node,
            role: Role::Manager,
            spec: NodeSpec { availability: request.availability, ..NodeSpec::default() },
            description: Arc::new(own_description()),
            addr: ip.clone(),
            key_digest: None,
        };
        let mut changes = vec![Change::ClusterCreate(Box::new(new_cluster)), Change::NodeCreate(Box::new(new_node))];
        if autolock {
            let unlock = UnlockKey::draw(&rng).and_then(|key| key.seal(vault));
            changes.push(Change::UnlockKeyDrawn(unlock.map_err(|error| failed("seal the unlock key", &error))?));
        }
        self.0.store.commit(now, changes).await.map_err(|error| match error {
            CommitError::Refused(Refusal::ClusterExists) => ControlError::AlreadyIn,
            other @ (CommitError::Refused(_) | CommitError::Full | CommitError::TooLarge | CommitError::Stopped) => {
                failed("store the cluster", &other)
            }
        })?;
        let started = match self.keep_key_file() {
            Ok(_) => self.start(&own, listener, listen, Shown::new(ip, notice)).await,
            Err(error) => Err(error),
        };
        if let Err(error) = started {
            // A cluster that serves nobody is none: the next `init` shall find none.
            self.0.vault.lock();
            if let Err(undo) = self.store_leave(cluster).await {
                log::error!("undo the cluster that could not start: {undo}");
            } else if let Err(undo) = keep::erase(&self.0.data) {
                log::error!("erase the keys of the cluster that could not start: {undo}");
            }
            self.dismiss_agent();
            return Err(error);
        }
        log::info!("made cluster {cluster}; this manager is node {node}");
        Ok(node)
    }

    /// What agents shall dial in a new cluster.
    async fn advertise(&self, said: &str, listen: SocketAddr, machine: &Machine) -> Result<Told, ControlError> {
        let given = match &self.0.advertise {
            Some(config) if !said.is_empty() && said != config => {
                let text = format!(
                    "pi-mgr serve was started with --advertise-addr {config}: leave it out here, or restart without it"
                );
                return Err(ControlError::Invalid(text));
            }
            Some(config) => config,
            None => said,
        };
        let resolved = match address::name(given, listen, machine) {
            Some(host) => moves::resolve(host, machine).await,
            None => Vec::new(),
        };
        address::advertise(given, listen, machine, &resolved).map_err(ControlError::Invalid)
    }
}

fn bits(rng: &SystemRandom) -> Result<u128, ControlError> {
    let mut bytes = [0; 16];
    rng.fill(&mut bytes).map_err(|_| no_random())?;
    Ok(u128::from_be_bytes(bytes))
}
/// The manager's machine, as a node without an agent: it holds no tasks.
fn own_description() -> NodeDescription {
    let host = Host::read();
    NodeDescription {
        hostname: host.name,
        machine: std::env::consts::ARCH.to_owned(),
        cpus: NanoCpus::new(host.cpus.saturating_mul(1_000_000_000)),
        memory: Bytes::new(host.memory),
        kernel: host.kernel,
        os: host.os,
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        tasks_max: 0,
        ..NodeDescription::default()
    }
}
