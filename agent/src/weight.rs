//! How much memory does a task's description take?
//!
//! In: a task's [`Work`]. Out: bytes of heap, rather too many than too few. The agent's heap is small and a service may
//! have a large environment, so that a board counts bytes and not only tasks.

use racimo_common::object::{ContainerSpec, DnsConfig, HealthConfig, Mount, MountKind};
use racimo_common::registry::Credentials;
use racimo_common::wire::Work;

/// Of each piece of text or part of a list beside its bytes: its place in a list that has room for more, and what the
/// allocator adds.
const EACH: usize = 2 * size_of::<String>() + 16;

/// Bytes of heap that `work` takes.
pub fn of(work: &Work) -> usize {
    let files = work.files.iter().map(|file| size_of_val(file) + EACH + file.target.len());
    size_of::<Work>()
        + text(&work.service_name)
        + text(&work.slot_name)
        + container(&work.container)
        + files.sum::<usize>()
        + work.resources.generic.keys().map(|kind| text(kind)).sum::<usize>()
        + work.credentials.as_ref().map_or(0, credentials)
        + work.fault.as_deref().map_or(0, text)
}

fn credentials(credentials: &Credentials) -> usize {
    match credentials {
        Credentials::Password { username, password } => text(username) + text(password),
        Credentials::IdentityToken(token) => text(token),
    }
}

fn container(spec: &ContainerSpec) -> usize {
    // Every field, so that a new one is not forgotten.
    let ContainerSpec {
        image,
        command,
        args,
        env,
        labels,
        hostname,
        user,
        dir,
        mounts,
        stop_signal,
        stop_grace: _,
        network: _,
        health,
        init: _,
        tty: _,
        open_stdin: _,
        read_only: _,
        groups,
        cap_add,
        cap_drop,
        ulimits,
        sysctls,
        dns: DnsConfig { servers, search, options },
        hosts,
        oom_score_adj: _,
        privileges: _,
        secrets,
        configs,
    } = spec;
    let lists = [command, args, env, groups, cap_add, cap_drop, servers, search, options, hosts];
    let optional = [hostname, user, dir, stop_signal];
    let references =
        secrets.iter().chain(configs).map(|file| size_of_val(file) + text(&file.name) + text(&file.target));
    let health = health.iter().map(|HealthConfig { test, .. }| texts(test));
    text(image)
        + lists.into_iter().map(|list| texts(list)).sum::<usize>()
        + optional.into_iter().flatten().map(|part| text(part)).sum::<usize>()
        + pairs(labels)
        + pairs(sysctls)
        + mounts.iter().map(mount).sum::<usize>()
        + ulimits.iter().map(|limit| size_of_val(limit) + text(&limit.name)).sum::<usize>()
        + references.sum::<usize>()
        + health.sum::<usize>()
}

fn mount(mount: &Mount) -> usize {
    let source = match &mount.kind {
        MountKind::Bind { source, options: _ } => text(source),
        MountKind::Volume { source, options } => source.as_deref().map_or(0, text) + pairs(&options.labels),
        MountKind::Tmpfs { options: _ } => 0,
    };
    2 * size_of::<Mount>() + text(&mount.target) + source
}

fn pairs<'a>(pairs: impl IntoIterator<Item = (&'a String, &'a String)>) -> usize {
    // A tree's node has room for eleven and may be half empty.
    pairs.into_iter().map(|(key, value)| text(key) + text(value)).sum()
}

fn texts(list: &[String]) -> usize {
    list.iter().map(|part| text(part)).sum()
}

fn text(text: &str) -> usize {
    EACH + text.len()
}
