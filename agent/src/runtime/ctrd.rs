//! One HTTP/2 connection to containerd over its unix socket, on smol.
//!
//! containerd-client's generated stubs take any `tower` service; [`Ctrd`] is one that needs no
//! tokio runtime: `TasksClient::new(ctrd.clone()).start(request(message, None))`.
//! Its futures are not `Send`: everything lives on one [`LocalExecutor`].

use std::{
    cell::OnceCell,
    collections::HashMap,
    future::Future,
    io,
    path::{Path, PathBuf},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use containerd_client::services::v1::{DeleteRequest, VersionResponse, version_client::VersionClient};
use futures_lite::FutureExt as _;
use hyper::{
    Request, Response, Uri,
    body::Incoming,
    client::conn::http2::{Builder, SendRequest},
    http::uri::PathAndQuery,
};
use smol::{LocalExecutor, Timer, net::unix::UnixStream};
use tonic::{Code, Status, body::Body, client::Grpc};
use tonic_prost::ProstCodec;

use super::{NAMESPACE, SNAPSHOTTER};
use crate::limits;

/// How containerd tells of a full disk: it hands the file system's error on as text only.
pub const NO_SPACE: &str = "no space left on device";

/// Why containerd could not be asked, or what it answered instead.
#[derive(Debug, thiserror::Error)]
pub enum CtrdError {
    /// Nothing listens at the socket, or it is not containerd.
    #[error(
        "containerd does not answer at {}: is the package installed and the service running?",
        socket.display()
    )]
    Unreachable {
        /// The socket that was tried.
        socket: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// containerd refused a call, or the connection broke during it.
    #[error("containerd could not {what}")]
    Call {
        /// The action, as in "start container".
        what: &'static str,
        /// containerd's answer.
        source: Answer,
    },
}

/// containerd's answer to a call that it refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Answer {
    /// The status code.
    pub code: Code,
    /// In containerd's words.
    pub message: String,
    /// True if the connection ended instead of an answer, or none came in time: what was asked for may yet happen.
    pub lost: bool,
}

impl From<Status> for Answer {
    fn from(status: Status) -> Self {
        // A call whose connection ended carries the transport's error as its source; one that
        // containerd answered carries none.
        let lost = matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded)
            || std::error::Error::source(&status).is_some();
        Self { code: status.code(), message: status.message().to_owned(), lost }
    }
}

impl CtrdError {
    /// For `map_err`: names the action that failed.
    pub fn call(what: &'static str) -> impl FnOnce(Status) -> Self {
        move |status| Self::Call { what, source: status.into() }
    }

    /// containerd's status code, if it answered at all.
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Unreachable { .. } => None,
            Self::Call { source, .. } => Some(source.code),
        }
    }

    /// True if the layer to stand on is not in containerd's database, or not on its disk, of which it hands the error
    /// on as text.
    pub fn is_not_there(&self) -> bool {
        match self {
            Self::Unreachable { .. } => false,
            Self::Call { source, .. } => {
                source.code == Code::NotFound || source.message.contains("no such file or directory")
            }
        }
    }

    /// True if containerd is gone rather than unwilling: connect again, then repeat.
    pub fn is_lost(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Call { source, .. } => source.lost,
        }
    }
}

/// Runs hyper's own tasks on our thread-local executor.
#[derive(Clone)]
pub struct Executor(pub Rc<LocalExecutor<'static>>);

impl<F: Future<Output: 'static> + 'static> hyper::rt::Executor<F> for Executor {
    fn execute(&self, future: F) {
        // hyper ends these together with their connection.
        self.0.spawn(future).detach();
    }
}

/// containerd's answer about its plugins: the parts that are used of `PluginsResponse`.
#[derive(Clone, PartialEq, prost::Message)]
struct Plugins {
    #[prost(message, repeated, tag = "1")]
    plugins: Vec<Plugin>,
}

/// One of them.
#[derive(Clone, PartialEq, prost::Message)]
struct Plugin {
    #[prost(map = "string, string", tag = "5")]
    exports: HashMap<String, String>,
}

/// The request of `Plugins`.
#[derive(Clone, PartialEq, prost::Message)]
struct Which {
    #[prost(string, repeated, tag = "1")]
    filters: Vec<String>,
}

/// Objects whose requests to delete have one shape: 1, which; 2, whether to wait for the garbage collector. They share
/// a message and its code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An image record, by name.
    Image,
    /// A blob, by digest; nobody waits.
    Content,
    /// A lease, by id.
    Lease,
}

/// A connection to containerd. Clones share it; it closes when the last one is dropped.
#[derive(Clone)]
pub struct Ctrd {
    sender: SendRequest<Body>,
    ended: async_channel::Receiver<()>,
    root: Rc<OnceCell<PathBuf>>,
}

impl Ctrd {
    /// Connects to containerd at `socket`. Background work runs on `executor`, which must be the
    /// one that polls this future.
    pub async fn connect(executor: &Executor, socket: &Path) -> Result<Self, CtrdError> {
        let open = async {
            let stream = UnixStream::connect(socket).await?;
            Builder::new(executor.clone())
                .initial_stream_window_size(limits::CTRD_STREAM_WINDOW)
                .initial_connection_window_size(limits::CTRD_CONNECTION_WINDOW)
                .max_send_buf_size(limits::CTRD_SEND_BUFFER)
                .max_header_list_size(limits::CTRD_HEADER_LIST)
                .header_table_size(0)
                .handshake(smol_hyper::rt::FuturesIo::new(stream))
                .await
                .map_err(io::Error::other)
        };
        let late = async {
            Timer::after(limits::CTRD_CONNECT_MAX).await;
            Err(io::ErrorKind::TimedOut.into())
        };
        let (sender, connection) =
            open.or(late).await.map_err(|source| CtrdError::Unreachable { socket: socket.to_path_buf(), source })?;
        // Nothing is ever sent: that `end` is dropped is the message.
        let (end, ended) = async_channel::bounded(1);
        executor
            .0
            .spawn(async move {
                if let Err(error) = connection.await {
                    log::warn!("connection to containerd ended: {error}");
                }
                drop(end);
            })
            .detach(); // ends with the last `Ctrd`, or with containerd
        Ok(Self { sender, ended, root: Rc::default() })
    }

    /// True once the connection has ended; it never comes back, so connect again.
    pub fn is_closed(&self) -> bool {
        self.ended.is_closed() || self.sender.is_closed()
    }

    /// Resolves when the connection has ended.
    pub async fn closed(&self) {
        // The channel carries no messages, so `recv` returns only when it is closed.
        let _ = self.ended.recv().await;
    }

    /// containerd's version, as `1.6.20~ds1`. Also the proof that it is containerd that answers.
    pub async fn version(&self) -> Result<String, CtrdError> {
        let mut client = VersionClient::new(self.clone());
        let answer: VersionResponse = within(limits::CTRD_CALL_MAX, client.version(request((), None)))
            .await
            .map_err(CtrdError::call("tell its version"))?
            .into_inner();
        Ok(answer.version)
    }

    /// The directory in which it keeps unpacked images and root file systems.
    pub async fn root(&self) -> Result<PathBuf, CtrdError> {
        if let Some(root) = self.root.get() {
            return Ok(root.clone());
        }
        let failed = || CtrdError::call("tell where its images are");
        let which = Which { filters: vec![format!("type==io.containerd.snapshotter.v1,id=={SNAPSHOTTER}")] };
        let path = PathAndQuery::from_static("/containerd.services.introspection.v1.Introspection/Plugins");
        let mut grpc = Grpc::new(self.clone());
        let call = grpc.unary(request(which, None), path, ProstCodec::<Which, Plugins>::default());
        let answer = within(limits::CTRD_CALL_MAX, call).await.map_err(failed())?.into_inner();
        let root = answer.plugins.into_iter().find_map(|mut plugin| plugin.exports.remove("root"));
        let root = root.ok_or_else(|| Status::not_found(format!("no snapshotter {SNAPSHOTTER}"))).map_err(failed())?;
        Ok(self.root.get_or_init(|| root.into()).clone())
    }

    /// Deletes an object. `sync`: answers when the garbage collector has freed its space.
    pub async fn delete(&self, kind: Kind, which: String, sync: bool) -> Result<(), Status> {
        let path = match kind {
            Kind::Image => "/containerd.services.images.v1.Images/Delete",
            Kind::Content => "/containerd.services.content.v1.Content/Delete",
            Kind::Lease => "/containerd.services.leases.v1.Leases/Delete",
        };
        let message = request(DeleteRequest { id: which, sync }, None);
        let mut grpc = Grpc::new(self.clone());
        let call = grpc.unary(message, PathAndQuery::from_static(path), ProstCodec::<DeleteRequest, ()>::default());
        within(if sync { limits::CTRD_COLLECT_MAX } else { limits::CTRD_CALL_MAX }, call).await.map(drop)
    }
}

impl tower_service::Service<Request<Body>> for Ctrd {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>>>>;

    /// Always ready. That the connection has ended is told by `call`: the stubs make an error of an unknown kind of what
    /// is said here, which looks like containerd's own.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        // tonic gives a path only; HTTP/2 wants a scheme and an authority.
        let mut parts = Uri::from_static("http://localhost").into_parts();
        parts.path_and_query = request.uri().path_and_query().cloned().or(parts.path_and_query);
        *request.uri_mut() = Uri::from_parts(parts).expect("scheme, authority and path are all present");
        Box::pin(self.sender.send_request(request))
    }
}

/// A message for our namespace, its new objects held by `lease` if there is one.
pub fn request<T>(message: T, lease: Option<&str>) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    let metadata = request.metadata_mut();
    metadata.insert("containerd-namespace", tonic::metadata::MetadataValue::from_static(NAMESPACE));
    if let Some(lease) = lease {
        let lease = lease.parse().expect("lease ids are ours and printable ASCII");
        metadata.insert("containerd-lease", lease);
    }
    request
}

/// Gives `call` up after `limit`, with [`Code::DeadlineExceeded`].
pub async fn within<T>(limit: Duration, call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    let late = async {
        Timer::after(limit).await;
        Err(Status::deadline_exceeded(format!("no answer within {} s", limit.as_secs())))
    };
    call.or(late).await
}

/// `Ok(None)` for the one refusal that means "nothing to do".
pub fn unless<T>(fine: Code, result: Result<T, Status>) -> Result<Option<T>, Status> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(status) if status.code() == fine => Ok(None),
        Err(status) => Err(status),
    }
}

/// A message as protobuf's `Any`, under containerd's short type name.
pub fn any(type_url: &str, message: &impl prost::Message) -> prost_types::Any {
    prost_types::Any { type_url: type_url.into(), value: message.encode_to_vec() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_containerd_is_told_by_its_socket() {
        let executor = Executor(Rc::new(LocalExecutor::new()));
        let error = smol::block_on(executor.0.run(Ctrd::connect(&executor, Path::new("/nonexistent/containerd.sock"))))
            .err()
            .expect("nothing listens there");
        assert_eq!(
            error.to_string(),
            "containerd does not answer at /nonexistent/containerd.sock: \
             is the package installed and the service running?"
        );
        assert!(error.is_lost());
    }

    #[test]
    fn a_call_on_a_connection_that_has_ended_is_lost() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("containerd.sock");
        let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let executor = Executor(Rc::new(LocalExecutor::new()));
        let error = smol::block_on(executor.0.run(async {
            let ctrd = Ctrd::connect(&executor, &socket).await.unwrap();
            drop(listener.accept().unwrap());
            ctrd.closed().await;
            ctrd.version().await.unwrap_err()
        }));
        assert!(error.is_lost(), "{error:?}");
    }

    #[test]
    fn a_call_that_hangs_is_given_up() {
        let hung = smol::future::pending::<Result<(), Status>>();
        let error = smol::block_on(within(Duration::from_millis(5), hung)).unwrap_err();
        assert_eq!(error.code(), Code::DeadlineExceeded);
        // The task is not at fault: whatever was asked for is asked again.
        assert!(CtrdError::call("start the container")(error).is_lost());
        assert!(!CtrdError::call("start the container")(Status::not_found("no such container")).is_lost());
    }

    #[test]
    fn requests_carry_namespace_and_lease() {
        let plain = request((), None);
        assert_eq!(plain.metadata().get("containerd-namespace").unwrap(), NAMESPACE);
        assert!(plain.metadata().get("containerd-lease").is_none());
        assert_eq!(request((), Some("l1")).metadata().get("containerd-lease").unwrap(), "l1");
    }
}
