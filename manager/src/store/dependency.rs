//! Secrets and configs in the store: made, labelled, removed, and protected while a service names them.
//!
//! Their bodies come sealed and are never looked at here.

use std::collections::BTreeMap;
use std::sync::Arc;

use racimo_common::id::DependencyId;
use racimo_common::object::{ContainerSpec, FileRef};

use super::apply::{Step, not_found};
use super::change::{NewDependency, Refusal};
use super::event::Event;
use super::object::{Dependency, DependencyKind, Service, ServiceSpec, UpdateState};
use crate::limits::{DEPENDENCIES_BYTES_MAX, DEPENDENCIES_MAX};

impl DependencyKind {
    /// The container's references to this kind.
    pub fn of(self, container: &ContainerSpec) -> &[FileRef] {
        match self {
            Self::Secret => &container.secrets,
            Self::Config => &container.configs,
        }
    }

    /// Where a file of this kind is inside the container: a secret's target counts from `/run/secrets`, a config's
    /// from `/`. None: no file can be there.
    pub fn place(self, target: &str) -> Option<String> {
        let base = match self {
            Self::Secret if !target.starts_with('/') => "/run/secrets/",
            Self::Secret | Self::Config => "/",
        };
        let parts: Vec<&str> = target.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
        let fits = !parts.is_empty() && !target.ends_with('/') && !target.contains('\0') && !parts.contains(&"..");
        fits.then(|| format!("{base}{}", parts.join("/")))
    }
}

impl Step {
    fn dependency(&self, id: DependencyId) -> Result<Arc<Dependency>, Refusal> {
        // Nobody asks for one whose kind is not known from the state before.
        self.state.dependencies.get(&id).cloned().ok_or_else(|| not_found("secret or config", id))
    }

    fn put_dependency(&mut self, mut dependency: Dependency) {
        dependency.meta = self.touch(dependency.meta);
        let (id, dependency) = (dependency.id, Arc::new(dependency));
        let old = self.state.dependencies.insert(id, dependency.clone());
        self.events.push(Event::Dependency { id, old, new: Some(dependency) });
    }

    pub(super) fn dependency_create(&mut self, new: &NewDependency) -> Result<(), Refusal> {
        let key = (new.kind, new.name.to_lowercase());
        if self.state.dependency_names.contains_key(&key) || self.state.dependencies.contains_key(&new.id) {
            return Err(Refusal::Exists { kind: new.kind, name: new.name.clone() });
        }
        if self.state.dependencies.len() >= DEPENDENCIES_MAX {
            return Err(Refusal::DependenciesMax);
        }
        let held: usize = self.state.dependencies.values().map(|d| d.body.0.len()).sum();
        if held + new.body.0.len() > DEPENDENCIES_BYTES_MAX {
            return Err(Refusal::DependenciesBytesMax);
        }
        self.state.dependency_names.insert(key, new.id);
        self.put_dependency(Dependency {
            id: new.id,
            kind: new.kind,
            meta: self.new_meta(),
            name: new.name.clone(),
            labels: new.labels.clone(),
            template: new.template,
            body: new.body.clone(),
        });
        Ok(())
    }

    pub(super) fn dependency_label(
        &mut self,
        id: DependencyId,
        version: u64,
        labels: &BTreeMap<String, String>,
    ) -> Result<(), Refusal> {
        let dependency = Arc::unwrap_or_clone(self.dependency(id)?);
        if dependency.meta.version != version {
            return Err(Refusal::OutOfSequence);
        }
        self.put_dependency(Dependency { labels: labels.clone(), ..dependency });
        Ok(())
    }

    pub(super) fn dependency_remove(&mut self, id: DependencyId) -> Result<(), Refusal> {
        let dependency = self.dependency(id)?;
        let kind = dependency.kind;
        // As in Swarm, only what services want counts, not tasks that are on their way out. A spec before counts while
        // an update that runs may have to go back to it.
        let named = |spec: &ServiceSpec| kind.of(&spec.task.container).iter().any(|file| file.id == id);
        let back = |service: &Service| {
            let runs = service.update.as_ref().is_some_and(|update| update.state == UpdateState::Updating);
            service.previous.as_ref().is_some_and(|spec| runs && named(spec))
        };
        let users = self.state.services.values().filter(|service| named(&service.spec) || back(service));
        let mut services: Vec<String> = users.map(|service| service.spec.name.clone()).collect();
        if !services.is_empty() {
            services.sort();
            return Err(Refusal::InUse { kind, name: dependency.name.clone(), services });
        }
        self.state.dependency_names.remove(&(kind, dependency.name.to_lowercase()));
        self.state.dependencies.remove(&id);
        self.events.push(Event::Dependency { id, old: Some(dependency), new: None });
        Ok(())
    }

    /// Whether all secrets and configs that the container names are there, under the names it uses.
    pub(super) fn check_dependencies(&self, container: &ContainerSpec) -> Result<(), Refusal> {
        for kind in DependencyKind::ALL {
            let is_there = |file: &FileRef| {
                let found = self.state.dependencies.get(&file.id);
                found.is_some_and(|found| found.kind == kind && found.name == file.name)
            };
            let missing = kind.of(container).iter().filter(|file| !is_there(file));
            let names: Vec<String> = missing.map(|file| file.name.clone()).collect();
            if !names.is_empty() {
                return Err(Refusal::Unknown { kind, names });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::super::{Change, Sealed, State, UpdateStatus};
    use super::*;
    use DependencyKind::{Config, Secret};

    fn create(number: u128, kind: DependencyKind, name: &str) -> Change {
        new_dependency(number, kind, name)
    }

    fn remove(number: u128) -> Change {
        Change::DependencyRemove { dependency: dependency(number) }
    }

    fn label(number: u128, version: u64) -> Change {
        let labels = [("a".to_owned(), "b".to_owned())].into();
        Change::DependencyLabel { dependency: dependency(number), version, labels }
    }

    fn user(number: u128, name: &str, secrets: &[(u128, &str)]) -> Change {
        new_service(number, with_secrets(&spec(name, "nginx", 1), secrets))
    }

    #[track_caller]
    fn refused(state: &State, change: Change, want: &str) {
        assert_eq!(apply(state, vec![change]).map(drop).expect_err("refused").to_string(), want);
    }

    #[test]
    fn places_of_files() {
        for (kind, target, want) in [
            (Secret, "key", Some("/run/secrets/key")),
            (Secret, "tls/key", Some("/run/secrets/tls/key")),
            (Secret, "/etc//./key", Some("/etc/key")),
            (Config, "app.conf", Some("/app.conf")),
            (Config, "/etc/app.conf", Some("/etc/app.conf")),
            (Secret, "../key", None),
            (Secret, "/etc/../key", None),
            (Config, "/", None),
            (Config, "a/", None),
            (Config, "", None),
            (Config, ".", None),
            (Config, "a\0", None),
        ] {
            assert_eq!(kind.place(target).as_deref(), want, "{kind:?} {target:?}");
        }
    }

    #[test]
    fn names_are_unique_among_their_kind() {
        let state = applied(&base(), vec![create(1, Secret, "Key"), create(2, Config, "key")]);
        assert_eq!(state.dependency_named(Secret, "kEY").map(|d| d.id), Some(dependency(1)));
        assert_eq!(state.dependency_named(Config, "key").map(|d| d.id), Some(dependency(2)));
        refused(&state, create(3, Secret, "key"), "secret key already exists");
        refused(&state, create(1, Secret, "other"), "secret other already exists");
        // A name that was let go is free again.
        let state = applied(&state, vec![remove(1), create(3, Secret, "KEY")]);
        assert_eq!(state.dependency_named(Secret, "key").map(|d| d.id), Some(dependency(3)));
    }

    #[test]
    fn only_labels_change_and_only_from_the_current_version() {
        let state = applied(&base(), vec![create(1, Secret, "key")]);
        let before = state.dependency(dependency(1)).expect("it is there").clone();
        refused(&state, label(1, before.meta.version - 1), "update out of sequence");
        let (state, events) = apply(&state, vec![label(1, before.meta.version)]).expect("labelled");
        let after = state.dependency(dependency(1)).expect("it is there");
        assert_eq!((after.meta.version, after.meta.created), (state.index(), before.meta.created));
        assert_eq!((after.labels.len(), &after.body), (1, &before.body));
        assert!(matches!(&events[..], [Event::Dependency { old: Some(_), new: Some(_), .. }]));
        let missing = format!("secret or config {} not found", dependency(9));
        refused(&state, label(9, 1), &missing);
        refused(&state, remove(9), &missing);
    }

    #[test]
    fn what_a_service_names_must_be_there_and_stays() {
        let state = applied(&base(), vec![create(1, Secret, "a"), create(2, Secret, "b"), create(3, Config, "a")]);
        refused(&state, user(5, "x", &[(9, "n")]), "secret not found: n");
        refused(&state, user(5, "x", &[(1, "b"), (9, "n")]), "secrets not found: b, n");
        refused(&state, user(5, "x", &[(3, "a")]), "secret not found: a");
        let state = applied(&state, vec![user(5, "x", &[(1, "a")]), user(6, "w", &[(1, "a"), (2, "b")])]);
        refused(&state, remove(1), "secret 'a' is in use by the following services: w, x");
        refused(&state, remove(2), "secret 'b' is in use by the following service: w");
        let version = state.service(service(6)).expect("it is there").meta.version;
        let update = |secrets: &[(u128, &str)]| Change::ServiceUpdate {
            service: service(6),
            version,
            spec: with_secrets(&spec("w", "nginx", 1), secrets),
        };
        refused(&state, update(&[(8, "z")]), "secret not found: z");
        // The spec before the update counts only while the update runs: it may have to go back.
        let state = applied(&state, vec![update(&[(2, "b")]), Change::ServiceRemove { service: service(5) }]);
        let revision = state.service(service(6)).expect("it is there").revision;
        let progress = |state| {
            let update = UpdateStatus { state, started: at(5), completed: None, message: String::new(), failures: 0 };
            Change::ServiceProgress { service: service(6), revision, update }
        };
        let updating = applied(&state, vec![progress(UpdateState::Updating)]);
        refused(&updating, remove(1), "secret 'a' is in use by the following service: w");
        applied(&updating, vec![progress(UpdateState::Completed), remove(1)]);
        let state = applied(&state, vec![remove(1)]);
        refused(&state, remove(2), "secret 'b' is in use by the following service: w");
    }

    #[test]
    fn secrets_and_configs_end() {
        let count = u128::try_from(DEPENDENCIES_MAX).expect("a small number");
        let kind = |number| if number % 2 == 0 { Secret } else { Config };
        let many = (1..=count).map(|number| create(number, kind(number), &format!("n{number}"))).collect();
        let full = applied(&base(), many);
        refused(
            &full,
            create(9999, Secret, "more"),
            "there are 1024 secrets and configs already: remove one that no service uses",
        );
        applied(&full, vec![remove(1), create(9999, Secret, "more")]);

        let large = |number: u128, kind, bytes: usize| {
            let body = Sealed(Arc::new(serde_bytes::ByteBuf::from(vec![0; bytes])));
            let name = format!("n{number}");
            let id = dependency(number);
            let new = NewDependency { id, kind, name, labels: BTreeMap::new(), template: false, body };
            Change::DependencyCreate(Box::new(new))
        };
        let full = applied(&base(), (1..=32).map(|number| large(number, kind(number), 1 << 20)).collect());
        let why = "all secrets and configs together may take 32 MiB: remove one that no service uses";
        refused(&full, large(33, Config, 1), why);
        let full = applied(&full, vec![remove(2), large(33, Config, (1 << 20) - 1)]);
        refused(&full, large(34, Secret, 2), why);
        applied(&full, vec![large(34, Secret, 1)]);
    }

    #[test]
    fn they_survive_a_snapshot_and_go_with_the_cluster() {
        let state = applied(&base(), vec![create(1, Secret, "a"), create(2, Config, "a")]);
        let restored = State::from_stored(state.to_stored()).expect("it is whole");
        assert_eq!(restored, state);
        let (left, events) = apply(&restored, vec![Change::ClusterLeave]).expect("left");
        assert_eq!(left.dependencies().count(), 0);
        assert_eq!(events.iter().filter(|e| matches!(e, Event::Dependency { new: None, .. })).count(), 2);
    }
}
