//! An agent moved by hand.

use futures_lite::AsyncWriteExt;
use racimo_agent::net::table::Table;
use racimo_common::limits::{FRAME_FROM_AGENT_MAX, FRAME_TO_AGENT_MAX};
use racimo_common::object::{ContainerStatus, NodeDescription, TaskReport, TaskState};
use racimo_common::wire::{
    Assign, BoardId, Hello, Refused, RefusedCode, Status, ToAgent, ToManager, Trusts, Welcome, frame,
};
use smol::net::unix::UnixStream;

use super::{Manager, within};
use crate::dispatcher::session::{self, End, Other};
use crate::store::testing::{at, node, task};

pub(super) struct Board {
    stream: UnixStream,
    /// What it was told about the network.
    pub(super) table: Table,
    pub(super) session: smol::Task<End>,
}

pub(super) fn hello(versions: (u16, u16)) -> ToManager {
    let description = NodeDescription { hostname: "board".to_owned(), ..NodeDescription::default() };
    ToManager::Hello(Hello { versions, boot: 1, description, trusts: Trusts::default(), board: BoardId::default() })
}

/// The same of a board that shows and trusts this.
pub(super) fn hello_with(trusts: Trusts) -> ToManager {
    let ToManager::Hello(hello) = hello((1, 1)) else { panic!("no Hello") };
    ToManager::Hello(Hello { trusts, ..hello })
}

pub(super) fn report(number: u128, state: TaskState) -> TaskReport {
    let container = Some(ContainerStatus { id: "c".to_owned(), pid: 0, exit_code: Some(3) });
    TaskReport {
        unhealthy: false,
        restarts: 0,
        ports: Vec::new(),
        task: task(number),
        state,
        at: at(50),
        message: "said".to_owned(),
        err: Some("e".to_owned()),
        container,
    }
}

impl Board {
    /// A connection that stands for this node without a certificate.
    pub(super) fn connect(manager: &Manager, number: u128) -> Self {
        Self::connect_as(manager, Other::Own(node(number)))
    }

    /// A connection of this other end.
    pub(super) fn connect_as(manager: &Manager, by: Other) -> Self {
        let (stream, other) = UnixStream::pair().expect("a pair of sockets");
        let context = manager.context.clone();
        let run = async move { session::run(&context, other, by, "192.0.2.9".to_owned()).await };
        Self { stream, table: Table::default(), session: smol::spawn(run) }
    }

    /// A session with its whole set.
    #[track_caller]
    pub(super) fn open(manager: &Manager, number: u128) -> (Self, Welcome, Assign) {
        Self::open_with(manager, number, Table::default())
    }

    /// The same for a board that was told about the network before.
    #[track_caller]
    pub(super) fn open_with(manager: &Manager, number: u128, table: Table) -> (Self, Welcome, Assign) {
        let mut board = Self::connect(manager, number);
        board.table = table;
        board.table.session();
        board.say(&hello((1, 1)));
        let ToAgent::Welcome(welcome) = board.hear() else { panic!("no Welcome") };
        // The network comes first.
        board.hear_net();
        let assign = board.hear_assign();
        assert!(assign.complete);
        (board, welcome, assign)
    }

    #[track_caller]
    pub(super) fn say(&mut self, message: &ToManager) {
        within(frame::send(&mut self.stream, message, FRAME_FROM_AGENT_MAX)).expect("sent");
    }

    /// Says it if the manager takes it within some seconds; false: it has hung up, or takes nothing any more.
    pub(super) fn try_say(&mut self, message: &ToManager) -> bool {
        let send = async { frame::send(&mut self.stream, message, FRAME_FROM_AGENT_MAX).await.is_ok() };
        let late = async {
            smol::Timer::after(std::time::Duration::from_secs(4)).await;
            false
        };
        futures_lite::future::block_on(futures_lite::future::or(send, late))
    }

    /// Bytes that are no message.
    #[track_caller]
    pub(super) fn say_bytes(&mut self, bytes: &[u8]) {
        within(async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        })
        .expect("sent");
    }

    #[track_caller]
    pub(super) fn say_status(&mut self, complete: bool, last: bool, index: u64, tasks: Vec<TaskReport>) {
        self.say(&ToManager::Status(Status { complete, last, index, tasks }));
    }

    /// The next message that is not about the network, which it takes in as a board does; `None` if the manager has
    /// closed the connection.
    #[track_caller]
    pub(super) fn hear_any(&mut self) -> Option<ToAgent> {
        loop {
            match within(frame::receive(&mut self.stream, FRAME_TO_AGENT_MAX)).ok().flatten() {
                Some(ToAgent::Net(net)) => self.table.take(net),
                other => return other,
            }
        }
    }

    /// The next message, which is about the network.
    #[track_caller]
    pub(super) fn hear_net(&mut self) {
        match within(frame::receive(&mut self.stream, FRAME_TO_AGENT_MAX)) {
            Ok(Some(ToAgent::Net(net))) => self.table.take(net),
            other => panic!("{other:?} is no Net"),
        }
    }

    #[track_caller]
    pub(super) fn hear(&mut self) -> ToAgent {
        self.hear_any().expect("the connection is open")
    }

    #[track_caller]
    pub(super) fn hear_assign(&mut self) -> Assign {
        let message = self.hear();
        let ToAgent::Assign(assign) = message else { panic!("{message:?} is no Assign") };
        assign
    }

    /// Skips what is still on its way, up to the refusal; the connection is closed after it.
    #[track_caller]
    pub(super) fn hear_refusal(&mut self) -> (RefusedCode, String) {
        loop {
            if let ToAgent::Refused(Refused { code, reason }) = self.hear() {
                assert_eq!(self.hear_any(), None, "it talks on");
                return (code, reason);
            }
        }
    }

    /// Waits for the answer to a heartbeat: everything said before has been handled.
    #[track_caller]
    pub(super) fn settle(&mut self, number: u64) {
        self.say(&ToManager::Heartbeat(number));
        while self.hear() != ToAgent::Pong(number) {}
    }

    pub(super) fn hang_up(self) -> End {
        drop(self.stream);
        within(self.session)
    }
}
