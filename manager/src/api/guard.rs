//! What every request passes: the role of who asks, what the route needs, the audit file; and what ends its answer.

use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_channel::{Receiver, Sender};
use futures_lite::{FutureExt, StreamExt, stream};
use hyper::{HeaderMap, Method, StatusCode};
use racimo_common::time::{Clock, Wall};
use serde_json::Value;

use super::answer::{Answer, CutOff};
use super::audit::Entry;
use super::error::ApiError;
use super::request::{Request, query};
use super::route::{self, Need};
use super::who::{self, Who};
use super::{Context, fields};
use crate::ca;
use crate::limits::{ACCESS_LOOK_EVERY, API_ACCESS_STREAMS_MAX};
use crate::store::{AccessRole, Store};

/// A request whose body was read.
pub(super) struct Asked {
    /// `HEAD` was turned into `GET`.
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) query: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

/// What somebody may do now.
///
/// # Errors
/// 403 with the reason.
pub(super) fn role(context: &Context, who: &Who) -> Result<AccessRole, ApiError> {
    role_at(&context.store, context.clock, who)
}

fn role_at(store: &Store, clock: Clock, who: &Who) -> Result<AccessRole, ApiError> {
    let view = store.view();
    let (system, ever) = (clock.now().wall, Wall::from_nanos(i64::MAX));
    let now = view.state.cluster().map_or(system, |cluster| ca::client_time(cluster, ever, system));
    who.role(&view.state, now)
}

/// Answers a request.
///
/// # Errors
/// What it is refused with.
pub(super) async fn answer(context: &Context, who: &Who, asked: Asked) -> Result<Answer, ApiError> {
    let role = role(context, who)?;
    let Asked { method, path, query: text, headers, body } = asked;
    let found = route::find(&method, &path)?;
    let permitted = who::permit(role, found.need, who, &format!("{method} {path}"));
    let kept = (method != Method::GET || found.need == Need::Secret).then(|| Entry {
        at: context.now(),
        who: who.to_string(),
        method: method.to_string(),
        path: path.clone(),
        status: 0,
        name: name(&found.name, &body),
        refused: permitted.is_err(),
    });
    let answered = match permitted.and_then(|()| context.admit(&path)) {
        Ok(()) => {
            let api_version = route::version(&path);
            let request = Request { role, method, api_version, name: found.name, query: query(&text), headers, body };
            (found.handler)(context, &request).await.and_then(|answer| bounded(context, who, answer))
        }
        Err(refusal) => Err(refusal),
    };
    if let Some(entry) = kept {
        let status = match &answered {
            Ok(answer) => answer.status(),
            Err(error) => error.status,
        };
        let (at, status) = (context.now(), status.as_u16());
        context.audit.keep(Entry { at, status, ..entry }).await;
    }
    answered
}

/// An answer that goes on ends with the access of who asked, and has one of its places.
fn bounded(context: &Context, who: &Who, answer: Answer) -> Result<Answer, ApiError> {
    match who {
        Who::Unix { .. } | Who::Local(_) => return Ok(answer),
        Who::Remote { .. } if !answer.is_stream() => return Ok(answer),
        Who::Remote { .. } => {}
    }
    let name = who.name();
    let Some(place) = context.streams.take(name) else {
        let text = format!(
            "access {name} has {API_ACCESS_STREAMS_MAX} streams open (events, logs, backups), as many as one may: close some, or \
             use another access"
        );
        return Err(ApiError::new(StatusCode::TOO_MANY_REQUESTS, text));
    };
    let (store, clock, changes) = (context.store.clone(), context.clock, context.changes.clone());
    let who = who.clone();
    let ended = Box::pin(async move {
        loop {
            let changed = changes.next();
            if role_at(&store, clock, &who).is_err() {
                return;
            }
            changed.or(pause(ACCESS_LOOK_EVERY)).await;
        }
    });
    // The place is held as long as it goes on.
    Ok(answer.map_chunks(|chunks| {
        let held = stream::unfold(Some((chunks, ended, place)), |state| async move {
            let (mut chunks, mut ended, place) = state?;
            let over = async {
                (&mut ended).await;
                Some(Err(CutOff))
            };
            match over.or(chunks.next()).await? {
                Ok(chunk) => Some((Ok(chunk), Some((chunks, ended, place)))),
                Err(cut) => {
                    // hyper sends what it has when it must wait, and drops it at an error.
                    futures_lite::future::yield_now().await;
                    Some((Err(cut), None))
                }
            }
        });
        held.boxed()
    }))
}

async fn pause(time: Duration) {
    smol::Timer::after(time).await;
}

/// What a request is about: the name that its body gives, else what its path names.
fn name(in_path: &str, body: &[u8]) -> String {
    let body = fields::parse(body).ok();
    let name = body.as_ref().and_then(|body| body.get("Name")).and_then(Value::as_str);
    name.filter(|name| !name.is_empty()).unwrap_or(in_path).to_owned()
}

/// Tells those who wait that accesses have changed.
pub(super) struct Changes(Mutex<(Sender<()>, Receiver<()>)>);

impl Default for Changes {
    fn default() -> Self {
        Self(Mutex::new(async_channel::bounded(1)))
    }
}

impl Changes {
    /// Done at the next change after this call.
    pub(super) fn next(&self) -> impl Future<Output = ()> + Send + use<> {
        let told = self.0.lock().unwrap_or_else(PoisonError::into_inner).1.clone();
        async move {
            // Nobody sends: it closes.
            let _ = told.recv().await;
        }
    }

    /// There was one.
    pub(super) fn tell(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = async_channel::bounded(1);
    }
}

#[cfg(test)]
mod tests {
    use racimo_common::time::Wall;
    use racimo_common::token::DIGEST_BYTES;

    use super::*;
    use crate::api::audit::Audit;
    use crate::api::testing::Lab;
    use crate::ca::Holder;
    use crate::store::{Access, Change};

    const KEY: [u8; DIGEST_BYTES] = [9; DIGEST_BYTES];

    fn somebody(lab: &Lab, name: &str, role: AccessRole) -> Who {
        let expires = Wall::from_nanos(i64::MAX);
        let access =
            Access { name: name.into(), role, key_digest: KEY, created: Wall::default(), expires, issuer: None };
        lab.commit(Change::AccessCreate(Box::new(access)));
        let cluster = lab.store.view().state.cluster().expect("a cluster").id;
        let holder = Some(Holder { name: name.into(), cluster, key_digest: KEY });
        Who::Remote { holder, from: [192, 168, 1, 7].into() }
    }

    fn kept(lab: &Lab) -> Vec<String> {
        let text = smol::block_on(lab.context.audit.last(99)).expect("it is read");
        let fields = |line: &str| line.split_once('\t').map(|(_, rest)| rest.replace('\t', " ")).unwrap_or_default();
        text.lines().map(fields).collect()
    }

    #[test]
    fn roles_hold_and_writes_are_kept() {
        let dir = tempfile::tempdir().expect("a directory");
        let lab = Lab::active_with(|context| context.with_audit(Audit::open(dir.path().to_owned())));
        let (ann, bob) = (somebody(&lab, "ann", AccessRole::Admin), somebody(&lab, "bob", AccessRole::ReadOnly));
        let ask = |who: &Who, method: &str, target: &str, body: &str| lab.ask_as(who, method, target, body, None);
        let body = r#"{"Name":"web","TaskTemplate":{"ContainerSpec":{"Image":"i"}}}"#;
        assert_eq!(ask(&ann, "POST", "/v1.47/services/create", body).0, 201);
        let (status, answer) = ask(&bob, "DELETE", "/services/web?password=x", "");
        let why = "access bob is read-only: it may look, but change nothing (DELETE /services/web)";
        assert_eq!((status, answer["message"].as_str()), (403, Some(why)));
        assert_eq!(ask(&bob, "GET", "/swarm/unlockkey", "").0, 403);
        assert_eq!(ask(&bob, "GET", "/distribution/a/json", "").0, 403);
        assert_eq!(ask(&bob, "GET", "/services/web", "").0, 200);
        let tokens = |who| ask(who, "GET", "/swarm", "").1["JoinTokens"]["Worker"].is_string();
        assert!(tokens(&ann) && !tokens(&bob));
        assert_eq!(ask(&ann, "DELETE", "/services/nosuch", "").0, 404);
        lab.commit(Change::AccessRemove { name: "ann".into() });
        assert_eq!(ask(&ann, "GET", "/services", "").0, 403);
        let want = [
            "unix uid=0 POST /swarm/init 200 -",
            "access ann@192.168.1.7 POST /v1.47/services/create 201 web",
            "access bob@192.168.1.7 DELETE /services/web 403 web",
            "access bob@192.168.1.7 GET /swarm/unlockkey 403 -",
            "access ann@192.168.1.7 DELETE /services/nosuch 404 nosuch",
        ];
        assert_eq!(kept(&lab), want);
    }

    fn asked(path: &str) -> Asked {
        let (headers, body) = (HeaderMap::new(), Vec::new());
        Asked { method: Method::GET, path: path.to_owned(), query: String::new(), headers, body }
    }

    #[test]
    fn one_access_leaves_streams_for_others() {
        let lab = Lab::active();
        let (ann, bob) = (somebody(&lab, "ann", AccessRole::Admin), somebody(&lab, "bob", AccessRole::ReadOnly));
        let events = |who: &Who| smol::block_on(answer(&lab.context, who, asked("/events")));
        let mut open: Vec<Answer> = (0..API_ACCESS_STREAMS_MAX).map(|_| events(&bob).expect("a stream")).collect();
        let refusal = events(&bob).map(|_| ()).expect_err("one too many");
        assert_eq!(refusal.status.as_u16(), 429);
        assert!(refusal.message.contains("access bob has 16 streams open"), "{}", refusal.message);
        assert!(events(&ann).is_ok() && events(&Who::Unix { uid: Some(0) }).is_ok());
        assert_eq!(lab.ask_as(&bob, "GET", "/services", "", None).0, 200, "what has an end goes on");
        open.pop();
        assert!(events(&bob).is_ok());
    }

    #[test]
    fn streams_end_with_their_access() {
        let lab = Lab::active();
        let bob = somebody(&lab, "bob", AccessRole::ReadOnly);
        smol::block_on(async {
            let events = answer(&lab.context, &bob, asked("/events")).await.expect("a stream");
            let mut read = Box::pin(crate::api::testing::read_on(events.into_response().into_body()));
            let late = || async {
                pause(Duration::from_millis(50)).await;
                None
            };
            let read_on = async { Some((&mut read).await) }.or(late()).await;
            assert_eq!(read_on, None, "it goes on");
            lab.context.changes.tell();
            let read_on = async { Some((&mut read).await) }.or(late()).await;
            assert_eq!(read_on, None, "another access changed");
            let now = lab.context.now();
            let gone = Change::AccessRemove { name: "bob".into() };
            lab.store.commit(now, vec![gone]).await.expect("removed");
            lab.context.changes.tell();
            assert_eq!(read.await, (Vec::new(), Err(CutOff)), "it is cut off");
        });
    }
}
