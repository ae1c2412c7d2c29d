//! How long a board needs to make a change of one service so, among 500 services with 10 tasks each: the agent's own
//! table, plan and kernel, in a namespace that ends with the process.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use racimo_agent::net::kernel::Kernel;
use racimo_agent::net::plan::task::Attach;
use racimo_agent::net::plan::{Attached, Plan, View};
use racimo_agent::net::table::Table as Told;
use racimo_common::id::{NetworkId, NodeId, RandomId as _, ServiceId, TaskId};
use racimo_common::net::{MTU, VXLAN_PORT};
use racimo_common::object::Protocol;
use racimo_common::wire::{Net, NetAttachment, NetEndpoint, NetNetwork, NetOwn, NetPeer, NetPort, NetService, TaskNet};

use super::lab::process::run as run_to_its_end;
use super::table::Table;

const SERVICES: u16 = 500;
const TASKS: u16 = 10;
/// How many changes are timed.
const ROUNDS: usize = 50;
const WAY: &str = "agent's table, plan and netlink in a network namespace of its own, one task on the services' network \
                   that has all their virtual addresses; every service publishes a port, its tasks are on 3 other boards";

/// Adds the figures, measured in another process.
pub(crate) fn measure(table: &mut Table) -> Result<()> {
    let program = std::env::current_exe()?.to_string_lossy().into_owned();
    let said = run_to_its_end(&["unshare", "--net", "--mount", &program, "apply"])?;
    let mut figures = said.lines();
    let mut add = |what: &str, way: &str| table.add(what, figures.next().unwrap_or("nothing was said"), way);
    add(&format!("all of {SERVICES} services with {TASKS} tasks each told to the kernel"), WAY);
    add("one service's change among them, until the kernel has it", &format!("{WAY}; median and worst of {ROUNDS}"));
    Ok(())
}

/// The other process: prints both figures.
pub(crate) fn run() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut board = Board::new(Kernel::open(folder.path()).map_err(|fault| anyhow::anyhow!(fault.reason()))?)?;
    let begin = Instant::now();
    board.take(Net { services: (0..SERVICES).map(|number| service(number, TASKS)).collect(), ..Net::default() })?;
    println!("{:.0} ms", begin.elapsed().as_secs_f64() * 1e3);
    let mut took: Vec<Duration> = Vec::new();
    for round in 0..ROUNDS {
        let active = if round % 2 == 0 { TASKS - 1 } else { TASKS };
        let change = Net { services: vec![service(SERVICES / 2, active)], ..Net::default() };
        let begin = Instant::now();
        board.take(change)?;
        took.push(begin.elapsed());
    }
    took.sort();
    let ms = |span: Duration| span.as_secs_f64() * 1e3;
    println!("{:.2} ms, worst {:.2} ms", ms(took[ROUNDS / 2]), ms(took[ROUNDS - 1]));
    board.kernel.detach(board.task, None, 1).map_err(|fault| anyhow::anyhow!(fault.reason()))
}

struct Board {
    told: Told,
    plan: Plan,
    tasks: BTreeMap<TaskId, Attached>,
    task: TaskId,
    kernel: Kernel,
}

impl Board {
    /// A board with three others and a task on the network.
    fn new(kernel: Kernel) -> Result<Self> {
        let task = TaskId::from_bits(1 << 100);
        let net = TaskNet {
            mesh: Some(Ipv4Addr::new(10, 200, 1, 2).into()),
            networks: vec![(NetworkId::from_bits(1), Ipv4Addr::new(10, 1, 255, 1).into())],
            ..TaskNet::default()
        };
        let tasks = [(task, Attached { net: net.clone(), ..Attached::default() })].into();
        let mut board = Self { told: Told::default(), plan: Plan::default(), tasks, task, kernel };
        board.take(Net {
            own: Some(NetOwn {
                mesh: "10.200.0.0/16".parse()?,
                subnet: "10.200.1.0/24".parse()?,
                address: Ipv4Addr::new(192, 168, 1, 1).into(),
                vxlan_port: VXLAN_PORT,
                mtu: MTU,
                key_epoch: 0,
            }),
            peers: (2..5).map(peer).collect::<Result<_>>()?,
            networks: vec![NetNetwork {
                id: NetworkId::from_bits(1),
                name: "net".to_owned(),
                vni: 4097,
                subnet: "10.1.0.0/16".parse()?,
                internal: false,
                encrypted: false,
                mtu: MTU,
            }],
            ..Net::default()
        })?;
        let attach = Attach::new(board.view(), task, &net).map_err(|not_yet| anyhow::anyhow!("{not_yet:?}"))?;
        board.kernel.attach(&attach).map_err(|fault| anyhow::anyhow!(fault.reason()))?;
        Ok(board)
    }

    fn view(&self) -> View<'_> {
        View { table: &self.told, tasks: &self.tasks }
    }

    /// Until the kernel has it all.
    fn take(&mut self, net: Net) -> Result<()> {
        self.told.take_into(net, &mut self.plan.changes);
        while let Some(ops) = self.plan.next(View { table: &self.told, tasks: &self.tasks }) {
            let failed = self.kernel.apply(ops);
            ensure!(failed.is_empty(), "{failed:?}");
        }
        Ok(())
    }
}

fn peer(number: u8) -> Result<NetPeer> {
    let subnet = format!("10.200.{number}.0/24").parse()?;
    let address = Ipv4Addr::new(192, 168, 1, number).into();
    Ok(NetPeer { node: NodeId::from_bits(number.into()), subnet, address, key: None })
}

/// A service whose first tasks are active.
fn service(number: u16, active: u16) -> NetService {
    let endpoint = |task: u16| {
        let all = u32::from(number * TASKS + task);
        let board = u8::try_from(2 + task % 3).unwrap_or(2);
        let [.., high, low] = (256 + all).to_be_bytes();
        NetEndpoint {
            targets: Box::default(),
            task: TaskId::from_bits(u128::from(all) + 2),
            hostname: None,
            slot: Some(u32::from(task) + 1),
            node: NodeId::from_bits(board.into()),
            // Boards have 254 addresses each; what is behind them does not matter here.
            mesh: Some(Ipv4Addr::new(10, 200, board, u8::try_from(2 + all % 250).unwrap_or(2)).into()),
            addresses: vec![Ipv4Addr::new(10, 1, high, low).into()],
            active: task < active,
            unsure: false,
        }
    };
    let [high, low] = number.to_be_bytes();
    NetService {
        id: ServiceId::from_bits(u128::from(number) + 1),
        name: format!("service{number}"),
        ports: vec![NetPort { protocol: Protocol::Tcp, published: 20_000 + number, target: 80 }],
        keep_source: false,
        networks: vec![NetAttachment {
            network: NetworkId::from_bits(1),
            vip: Some(Ipv4Addr::new(10, 1, 100 + high, low).into()),
            aliases: Vec::new(),
        }],
        endpoints: (0..TASKS).map(endpoint).collect(),
    }
}
