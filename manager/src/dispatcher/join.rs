//! A board asks to become a member: token, certificate request → node, certificate.

use std::sync::Arc;

use log::Level;
use racimo_common::id::{NodeId, RandomId};
use racimo_common::object::{NodeDescription, Role};
use racimo_common::wire::{Join, Joined, Refused, RefusedCode, ToAgent};
use ring::rand::{SecureRandom, SystemRandom};

use super::Context;
use crate::ca::JoinTokens;
use crate::ca::admit::{self, Admission};
use crate::gate::door::Guest;
use crate::limits;
use crate::store::{Change, Cluster, CommitError, NewNode, NodeSpec, View};

/// Answers a request; the answer is [`ToAgent::Joined`] or [`ToAgent::Refused`].
pub(super) async fn answer(context: &Context, join: Join, addr: &str, guest: &Guest<NodeId>) -> ToAgent {
    let host: String = join.hostname.chars().filter(|c| !c.is_control()).take(limits::HOSTNAME_CHARS_MAX).collect();
    match grant(context, &join, &host, addr).await {
        Ok((joined, is_new)) => {
            let text = format!("node {} ({host}) joined from {addr} as {}", joined.node, joined.role);
            if is_new {
                guest.joined();
                log::info!("{text}");
            } else {
                context.notes.say(Level::Info, guest.source(), "joined again", text);
            }
            ToAgent::Joined(joined)
        }
        Err(refused) => {
            if refused.code == RefusedCode::Token {
                guest.failed();
            }
            context.notes.say(
                Level::Warn,
                guest.source(),
                refusal(refused.code),
                format_args!("a join from {addr} ({host}) was refused: {}", refused.reason),
            );
            ToAgent::Refused(refused)
        }
    }
}

/// What a refused join is counted as.
fn refusal(code: RefusedCode) -> &'static str {
    match code {
        RefusedCode::Token => "wrong token",
        RefusedCode::Version => "join of another version",
        RefusedCode::Busy => "join refused as busy",
        RefusedCode::Protocol
        | RefusedCode::NotMember
        | RefusedCode::Replaced
        | RefusedCode::Expired
        | RefusedCode::Clone => "bad request to join",
    }
}

fn refused(code: RefusedCode, reason: impl Into<String>) -> Refused {
    Refused { code, reason: reason.into() }
}

/// What the board gets, and whether it is a new member.
async fn grant(context: &Context, join: &Join, host: &str, addr: &str) -> Result<(Joined, bool), Refused> {
    let view = context.store.view();
    let cluster = view.state.cluster().ok_or_else(|| refused(RefusedCode::Busy, "this manager is in no cluster"))?;
    let authority = context.authority.now();
    let tokens = JoinTokens::open(&context.vault, authority.token_root(), cluster)
        .map_err(|error| refused(RefusedCode::Busy, format!("the join tokens cannot be opened: {error}")))?;
    let admission = admit::judge(&tokens, join)?;
    if admission.role == Role::Manager {
        return Err(refused(RefusedCode::Token, "further managers are not supported yet: use the worker token"));
    }
    // An agent whose answer was lost asks again with the same key: it stays one node.
    let key_digest = admission.request.key_digest();
    let (node, is_new) = match known(&view, key_digest) {
        Some(node) => (node, false),
        None => match create(context, cluster, &admission, key_digest, host, addr).await {
            Ok(node) => (node, true),
            // Its first request may have been granted meanwhile.
            Err(refused) => (known(&context.store.view(), key_digest).ok_or(refused)?, false),
        },
    };
    let busy = |error: CommitError| refused(RefusedCode::Busy, error.to_string());
    let now = authority.time_to_sign(&context.store, context.clock).await.map_err(busy)?;
    let validity = cluster.spec.cert_expiry();
    let granted = admission.grant(&authority, node, &cluster.managers, now, validity, &SystemRandom::new());
    granted.map(|joined| (joined, is_new)).map_err(|error| refused(RefusedCode::Busy, error.to_string()))
}

fn known(view: &View, key_digest: [u8; 32]) -> Option<NodeId> {
    view.state.nodes().find(|node| node.key_digest == Some(key_digest)).map(|node| node.id)
}

async fn create(
    context: &Context,
    cluster: &Arc<Cluster>,
    admission: &Admission,
    key_digest: [u8; 32],
    host: &str,
    addr: &str,
) -> Result<NodeId, Refused> {
    let busy = |what: &str| refused(RefusedCode::Busy, what);
    if context.store.view().state.nodes().count() >= limits::NODES_MAX {
        let (id, most) = (cluster.id, limits::NODES_MAX);
        return Err(busy(&format!("cluster {id} has {most} nodes, more are not supported")));
    }
    let mut bits = [0; 16];
    SystemRandom::new().fill(&mut bits).map_err(|_| busy("the manager has no random numbers"))?;
    let id = NodeId::from_bits(u128::from_be_bytes(bits));
    let description = NodeDescription { hostname: host.to_owned(), ..NodeDescription::default() };
    let new = NewNode {
        id,
        role: admission.role,
        spec: NodeSpec::default(),
        description: description.into(),
        addr: addr.to_owned(),
        key_digest: Some(key_digest),
    };
    let created = context.store.commit(context.clock.now().wall, vec![Change::NodeCreate(Box::new(new))]).await;
    created.map_err(|error| busy(&error.to_string()))?;
    Ok(id)
}
