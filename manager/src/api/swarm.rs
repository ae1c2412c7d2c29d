//! `/swarm`: the cluster itself.

use hyper::StatusCode;
use racimo_common::object::Role;
use racimo_common::token::SECRET_BYTES;
use ring::rand::{SecureRandom, SystemRandom};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::answer::Answer;
use super::control::{ControlError, ControlStatus};
use super::error::ApiError;
use super::fields::Fields;
use super::request::Request;
use super::{Context, convert, rotation, validate};
use crate::ca::kept;
use crate::store::{AccessRole, Change, Sealed, TokenSecret};
use crate::vault::unlock::UnlockKey;

/// Said to everything that needs a cluster while there is none.
pub(crate) const NOT_A_MANAGER: &str = "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again.";
/// Said when a cluster is made or joined from within one.
pub(crate) const ALREADY_IN: &str =
    "This node is already part of a swarm. Use \"docker swarm leave\" to leave this swarm and join another one.";
/// Said to nearly everything while the manager waits for its unlock key.
pub(crate) const LOCKED: &str = "Swarm is encrypted and needs to be unlocked before it can be used. Please use \"docker swarm unlock\" to unlock it.";
const LEAVE_LOCKED: &str =
    "Swarm is encrypted and locked. Please unlock it first or use `--force` to ignore this message.";
const NOT_IN: &str = "This node is not part of a swarm";
const LAST_MANAGER: &str = "You are attempting to leave the swarm on a node that is participating as a manager. Removing the last manager erases all current state of the swarm. Use `--force` to ignore this message. ";

impl From<ControlError> for ApiError {
    fn from(error: ControlError) -> Self {
        match error {
            ControlError::AlreadyIn => Self::unavailable(ALREADY_IN),
            ControlError::NotIn => Self::unavailable(NOT_IN),
            ControlError::NotLocked => Self::new(StatusCode::CONFLICT, "swarm is not locked"),
            ControlError::WrongKey => {
                Self::new(StatusCode::UNAUTHORIZED, "swarm could not be unlocked: invalid key provided")
            }
            ControlError::TooManyTries(wait) => {
                let seconds = wait.as_secs() + 1;
                let why = format!("too many wrong unlock keys were tried: try again in {seconds} s");
                Self::new(StatusCode::TOO_MANY_REQUESTS, why)
            }
            ControlError::Busy(why) => Self::unavailable(why),
            ControlError::Invalid(why) => Self::bad_request(why),
            ControlError::Failed(why) => Self::new(StatusCode::INTERNAL_SERVER_ERROR, why),
        }
    }
}

/// `GET /swarm`. Who may only look sees no join tokens.
pub(super) async fn inspect(context: &Context, request: &Request) -> Result<Answer, ApiError> {
    let view = context.cluster_view()?;
    let cluster = view.state.cluster().ok_or_else(|| ApiError::unavailable(NOT_A_MANAGER))?;
    Ok(Answer::ok(&match request.role {
        AccessRole::Admin => convert::swarm::cluster(cluster, &context.vault)?,
        AccessRole::ReadOnly => convert::swarm::without_tokens(cluster),
    }))
}

/// `POST /swarm/init`.
pub(super) async fn init(context: &Context, request: &Request) -> Result<Answer, ApiError> {
    if context.control.status() != ControlStatus::Inactive {
        return Err(ApiError::unavailable(ALREADY_IN));
    }
    let init = convert::swarm::init(&request.json()?)?;
    let node = context.control.init(init).await?;
    Ok(Answer::ok(&Value::String(node.to_string())))
}

/// `POST /swarm/join`.
pub(super) async fn join(context: &Context, _: &Request) -> Result<Answer, ApiError> {
    if context.control.status() != ControlStatus::Inactive {
        return Err(ApiError::unavailable(ALREADY_IN));
    }
    Err(ApiError::not_supported(
        "a manager cannot join another cluster yet; to add a board, run there: pi-agent join --token TOKEN HOST:2377",
    ))
}

/// `POST /swarm/leave`.
pub(super) async fn leave(context: &Context, request: &Request) -> Result<Answer, ApiError> {
    // A cluster that could not be resumed is in the store all the same, and can be left.
    let is_in = context.control.status() != ControlStatus::Inactive || context.cluster_view().is_ok();
    if !is_in {
        return Err(ApiError::unavailable(NOT_IN));
    }
    if !request.flag("force") && matches!(context.control.status(), ControlStatus::Locked { .. }) {
        return Err(ApiError::unavailable(LEAVE_LOCKED));
    }
    if !request.flag("force") {
        return Err(ApiError::unavailable(LAST_MANAGER));
    }
    context.control.leave().await?;
    context.changes.tell();
    Ok(Answer::empty())
}

/// `POST /swarm/update`.
pub(super) async fn update(context: &Context, request: &Request) -> Result<Answer, ApiError> {
    let view = context.cluster_view()?;
    let version = request.version("swarm")?;
    let body = request.json()?;
    let (spec, root) = convert::swarm::spec(Fields::of("", &body)?)?;
    validate::offline::check_heartbeat(&view.state, spec.heartbeat()).map_err(ApiError::invalid)?;
    let fresh = |flag, role| match request.flag(flag) {
        true => draw_token(context, role).map(Some),
        false => Ok(None),
    };
    let is_locked = view.state.cluster().is_some_and(|cluster| cluster.trust.unlock.is_some());
    let unlock = match (spec.autolock, is_locked, request.flag("rotateManagerUnlockKey")) {
        (false, _, true) => return Err(ApiError::bad_request("cannot rotate because autolock is not turned on")),
        (true, false, _) | (true, true, true) => Some(Change::UnlockKeyDrawn(draw_unlock_key(context)?)),
        (false, true, false) => Some(Change::UnlockKey(None)),
        (true, true, false) | (false, false, false) => None,
    };
    let mut changes = vec![Change::ClusterUpdate {
        version,
        spec,
        worker_secret: fresh("rotateWorkerToken", Role::Worker)?,
        manager_secret: fresh("rotateManagerToken", Role::Manager)?,
    }];
    let rotation = rotation::begin(context, &view, &root)?;
    let begins = rotation.is_some();
    changes.extend(rotation);
    let relocks = unlock.is_some();
    changes.extend(unlock);
    context.commit_all(changes).await?;
    if begins {
        log::info!("the root is rotated: boards get certificates of the new one");
    }
    if relocks {
        context.control.relock().await?;
    }
    Ok(Answer::empty())
}

/// A new unlock key, sealed.
fn draw_unlock_key(context: &Context) -> Result<Sealed, ApiError> {
    Ok(UnlockKey::draw(&SystemRandom::new())?.seal(&context.vault)?)
}

/// A new secret for the token that makes nodes of this role, sealed.
fn draw_token(context: &Context, role: Role) -> Result<TokenSecret, ApiError> {
    let mut secret = Zeroizing::new([0; SECRET_BYTES]);
    SystemRandom::new().fill(&mut *secret).map_err(|_| {
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "the system gives no random numbers: nothing was changed")
    })?;
    Ok(kept::seal_token(&context.vault, role, &secret)?)
}

/// `GET /swarm/unlockkey`.
pub(super) async fn unlock_key(context: &Context, _: &Request) -> Result<Answer, ApiError> {
    let view = context.cluster_view()?;
    let cluster = view.state.cluster().ok_or_else(|| ApiError::unavailable(NOT_A_MANAGER))?;
    let text = UnlockKey::open(&context.vault, cluster)?.map(|key| key.text());
    if let (Some(key), Some(_)) = (&cluster.trust.unlock, &cluster.trust.unlock_before) {
        // Before the answer: once somebody has seen it, the one before opens nothing.
        let shown = context.control.unlock_key_shown(key.clone()).await;
        let view = context.cluster_view()?;
        let trust = view.state.cluster().map(|cluster| &cluster.trust);
        if trust.and_then(|trust| trust.unlock.as_ref()) != Some(key) {
            return Err(ApiError::unavailable("the unlock key was replaced meanwhile: ask again"));
        }
        if let Err(error) = shown {
            if trust.is_some_and(|trust| trust.unlock_before.is_some()) {
                return Err(ApiError::unavailable(format!("the unlock key cannot be shown now: {error}")));
            }
            // It is stored, and the file follows.
            log::warn!("the unlock key is shown, but what opened the manager before still does: {error}");
        }
    }
    // Empty means that there is none.
    Ok(Answer::ok(&json!({ "UnlockKey": text.as_deref().map_or("", String::as_str) })))
}

/// `POST /swarm/unlock`.
pub(super) async fn unlock(context: &Context, request: &Request) -> Result<Answer, ApiError> {
    context.cluster_view()?;
    let body = request.json()?;
    let mut fields = Fields::of("", &body)?;
    let key = Zeroizing::new(fields.text("UnlockKey")?.unwrap_or_default());
    fields.done()?;
    context.control.unlock(key).await?;
    Ok(Answer::empty())
}
