//! Applying what changes about trust.

use std::sync::Arc;

use racimo_common::id::NodeId;
use racimo_common::time::Wall;

use super::apply::{Step, not_found};
use super::change::Refusal;
use super::object::{Cluster, Node, Sealed};
use super::trust::{Access, NodeTrust, Retired, Rotation, TokenSecret, UnlockBefore};
use crate::limits::{ACCESSES_MAX, ROOTS_RETIRED_MAX};

impl Step {
    pub(super) fn root_key(&mut self, key: &Sealed) -> Result<(), Refusal> {
        self.edit_cluster(|cluster| {
            cluster.trust.key = Some(key.clone());
            Ok(())
        })
    }

    pub(super) fn signed(&mut self, at: Wall) -> Result<(), Refusal> {
        let mut cluster = self.state.cluster.as_deref().cloned().ok_or(Refusal::NoCluster)?;
        cluster.trust.signed = cluster.trust.signed.max(at);
        self.state.cluster = Some(Arc::new(cluster));
        Ok(())
    }

    pub(super) fn rotation_begin(&mut self, rotation: &Rotation) -> Result<(), Refusal> {
        let started = self.at;
        self.edit_cluster(|cluster| {
            if cluster.trust.rotation.is_some() {
                return Err(Refusal::RotationUnderWay);
            }
            cluster.trust.rotation = Some(Rotation { started, ..rotation.clone() });
            cluster.trust.asked += 1;
            Ok(())
        })
    }

    pub(super) fn rotation_replace(&mut self, rotation: &Rotation, cross_pem: &str) -> Result<(), Refusal> {
        let started = self.at;
        self.edit_cluster(|cluster| {
            let before = cluster.trust.rotation.replace(Rotation { started, ..rotation.clone() });
            let Rotation { root_pem, .. } = before.ok_or(Refusal::NoRotation)?;
            retire(cluster, Retired { root_pem, cross_pem: cross_pem.to_owned() });
            cluster.trust.asked += 1;
            Ok(())
        })
    }

    /// The new root takes the old one's place; `tokens` for worker and manager, because the digest in them changes.
    pub(super) fn rotation_finish(&mut self, tokens: &[TokenSecret; 2]) -> Result<(), Refusal> {
        self.edit_cluster(|cluster| {
            let rotation = cluster.trust.rotation.take().ok_or(Refusal::NoRotation)?;
            let root_pem = std::mem::replace(&mut cluster.root_pem, rotation.root_pem);
            cluster.trust.key = Some(rotation.key);
            retire(cluster, Retired { root_pem, cross_pem: rotation.cross_pem });
            [cluster.worker_secret, cluster.manager_secret] = tokens.clone();
            Ok(())
        })
    }

    pub(super) fn unlock_key(&mut self, key: Option<&Sealed>) -> Result<(), Refusal> {
        self.edit_cluster(|cluster| {
            cluster.trust.unlock = key.cloned();
            cluster.trust.unlock_before = None;
            Ok(())
        })
    }

    pub(super) fn unlock_key_drawn(&mut self, key: &Sealed) -> Result<(), Refusal> {
        self.edit_cluster(|cluster| {
            let trust = &mut cluster.trust;
            let before = trust.unlock.replace(key.clone()).map_or(UnlockBefore::Nothing, UnlockBefore::Key);
            // A key that was drawn and never shown is nobody's.
            trust.unlock_before.get_or_insert(before);
            Ok(())
        })
    }

    /// The cluster's version stays: looking at a key gets in no update's way.
    pub(super) fn unlock_key_shown(&mut self, key: &Sealed) -> Result<(), Refusal> {
        let mut cluster = self.state.cluster.as_deref().cloned().ok_or(Refusal::NoCluster)?;
        if cluster.trust.unlock.as_ref() == Some(key) {
            cluster.trust.unlock_before = None;
            self.state.cluster = Some(Arc::new(cluster));
        }
        Ok(())
    }

    pub(super) fn node_trust(&mut self, id: NodeId, trust: &NodeTrust) -> Result<(), Refusal> {
        let node = Arc::unwrap_or_clone(self.node(id)?);
        self.put_node(Node { trust: Some(trust.clone()), ..node });
        Ok(())
    }

    pub(super) fn access_create(&mut self, access: &Access) -> Result<(), Refusal> {
        if self.state.cluster.is_none() {
            return Err(Refusal::NoCluster);
        }
        if self.state.accesses.contains_key(&access.name) {
            return Err(Refusal::NameTaken { kind: "access", name: access.name.clone() });
        }
        if self.state.accesses.len() >= ACCESSES_MAX {
            return Err(Refusal::AccessesMax);
        }
        let access = Access { created: self.at, ..access.clone() };
        self.state.accesses.insert(access.name.clone(), Arc::new(access));
        Ok(())
    }

    pub(super) fn access_remove(&mut self, name: &str) -> Result<(), Refusal> {
        self.state.accesses.remove(name).map(drop).ok_or_else(|| not_found("access", name))
    }
}

fn retire(cluster: &mut Cluster, root: Retired) {
    let retired = &mut cluster.trust.retired;
    retired.push(root);
    let surplus = retired.len().saturating_sub(ROOTS_RETIRED_MAX);
    retired.drain(..surplus);
}

#[cfg(test)]
mod tests {
    use super::super::testing::{apply, at, base, node};
    use super::super::{AccessRole, Change, NodeTrust, State};
    use super::*;

    fn sealed(byte: u8) -> Sealed {
        Sealed(Arc::new(serde_bytes::ByteBuf::from(vec![byte])))
    }

    fn begin() -> Change {
        let (root_pem, cross_pem) = ("new root".to_owned(), "cross".to_owned());
        Change::RotationBegin(Box::new(Rotation { root_pem, key: sealed(2), cross_pem, started: Wall::default() }))
    }

    fn access(name: &str) -> Change {
        let (role, name) = (AccessRole::Admin, name.to_owned());
        let (created, expires) = (Wall::default(), at(100));
        Change::AccessCreate(Box::new(Access { name, role, key_digest: [1; 32], created, expires, issuer: None }))
    }

    #[track_caller]
    fn after(state: &State, changes: Vec<Change>) -> State {
        apply(state, changes).expect("it is taken").0
    }

    #[track_caller]
    fn refused(state: &State, change: Change, words: &str) {
        let refusal = apply(state, vec![change]).expect_err("it is refused").to_string();
        assert!(refusal.contains(words), "{refusal}");
    }

    #[test]
    fn a_root_replaces_another() {
        let finish = Change::RotationFinish { tokens: [[8; 16].into(), [9; 16].into()] };
        let before = after(&base(), vec![Change::RootKey(sealed(1))]);
        refused(&before, finish.clone(), "no root rotation");
        let turning = after(&before, vec![begin()]);
        refused(&turning, begin(), "under way already");
        let cluster = turning.cluster().expect("a cluster");
        assert_eq!((&*cluster.root_pem, cluster.trust.asked), ("root", 1));
        assert!(cluster.trust.rotation.as_ref().is_some_and(|rotation| rotation.started > Wall::default()));

        let mut state = after(&turning, vec![finish.clone()]);
        let cluster = state.cluster().expect("a cluster");
        assert_eq!(
            (&*cluster.root_pem, &cluster.trust.key, &cluster.worker_secret),
            ("new root", &Some(sealed(2)), &[8; 16].into())
        );
        let retired = Retired { root_pem: "root".to_owned(), cross_pem: "cross".to_owned() };
        assert_eq!((&cluster.trust.rotation, &cluster.trust.retired), (&None, &vec![retired]));
        for _ in 0..ROOTS_RETIRED_MAX {
            state = after(&after(&state, vec![begin()]), vec![finish.clone()]);
        }
        let retired = &state.cluster().expect("a cluster").trust.retired;
        assert!(retired.len() == ROOTS_RETIRED_MAX && retired.iter().all(|retired| retired.root_pem == "new root"));
    }

    #[test]
    fn a_rotation_replaces_another_that_is_under_way() {
        let third = || {
            let (root_pem, cross_pem) = ("third root".to_owned(), "third by root".to_owned());
            let rotation = Box::new(Rotation { root_pem, key: sealed(3), cross_pem, started: Wall::default() });
            Change::RotationReplace { rotation, cross_pem: "third by new".to_owned() }
        };
        let before = after(&base(), vec![Change::RootKey(sealed(1))]);
        refused(&before, third(), "no root rotation");
        let state = after(&after(&before, vec![begin()]), vec![third()]);
        let trust = |state: &State| state.cluster().expect("a cluster").trust.clone();
        let roots =
            |state: &State| trust(state).retired.into_iter().map(|it| (it.root_pem, it.cross_pem)).collect::<Vec<_>>();
        let pair = |root: &str, cross: &str| (root.to_owned(), cross.to_owned());
        assert_eq!(state.cluster().expect("a cluster").root_pem, "root", "the present root stays");
        assert_eq!((trust(&state).asked, roots(&state)), (2, vec![pair("new root", "third by new")]));
        assert!(trust(&state).rotation.is_some_and(|it| it.root_pem == "third root" && it.started > Wall::default()));
        let state = after(&state, vec![Change::RotationFinish { tokens: [[8; 16].into(), [9; 16].into()] }]);
        assert_eq!(state.cluster().expect("a cluster").root_pem, "third root");
        assert_eq!(roots(&state), [pair("new root", "third by new"), pair("root", "third by root")]);
    }

    #[test]
    fn accesses_have_names() {
        let state = after(&base(), vec![access("ann"), access("bob")]);
        assert_eq!(state.accesses().map(|access| &*access.name).collect::<Vec<_>>(), ["ann", "bob"]);
        assert!(state.access("ann").is_some_and(|access| access.created > Wall::default()));
        refused(&state, access("ann"), "access ann already exists");
        refused(&State::default(), access("ann"), "not part of a cluster");
        let state = after(&state, vec![Change::AccessRemove { name: "ann".to_owned() }]);
        refused(&state, Change::AccessRemove { name: "ann".to_owned() }, "access ann not found");
        assert!(State::from_stored(state.to_stored()).is_some_and(|again| again == state));
        let full = (0..ACCESSES_MAX).map(|number| access(&format!("n{number}"))).collect();
        refused(&after(&base(), full), access("one more"), "already");
        assert_eq!(after(&state, vec![Change::ClusterLeave]).accesses().count(), 0);
    }

    #[test]
    fn when_something_was_signed_only_grows() {
        let version = |state: &State| state.cluster().map(|cluster| (cluster.meta.version, cluster.trust.signed));
        let before = base();
        let state = after(&before, vec![Change::Signed(at(500))]);
        let same = version(&before).map(|(version, _)| version);
        assert_eq!(version(&state), same.map(|version| (version, at(500))));
        assert_eq!(version(&after(&state, vec![Change::Signed(at(400))])), same.map(|version| (version, at(500))));
        refused(&State::default(), Change::Signed(at(1)), "not part of a cluster");
    }

    #[test]
    fn an_unlock_key_alone_counts_once_it_was_shown() {
        use UnlockBefore::{Key, Nothing};
        let (drawn, shown) = (|key| Change::UnlockKeyDrawn(sealed(key)), |key| Change::UnlockKeyShown(sealed(key)));
        let mut state = base();
        for (step, change, want) in [
            (0, drawn(1), (Some(1), Some(Nothing))),
            (1, shown(9), (Some(1), Some(Nothing))),
            // Nobody has seen the first: there still is nothing to be asked for.
            (2, drawn(2), (Some(2), Some(Nothing))),
            (3, shown(1), (Some(2), Some(Nothing))),
            (4, shown(2), (Some(2), None)),
            (5, shown(2), (Some(2), None)),
            (6, drawn(3), (Some(3), Some(Key(sealed(2))))),
            (7, drawn(4), (Some(4), Some(Key(sealed(2))))),
            (8, shown(4), (Some(4), None)),
            (9, drawn(5), (Some(5), Some(Key(sealed(4))))),
            (10, Change::UnlockKey(None), (None, None)),
            (11, shown(5), (None, None)),
            (12, Change::UnlockKey(Some(sealed(6))), (Some(6), None)),
        ] {
            let version = state.cluster().expect("a cluster").meta.version;
            let is_shown = matches!(change, Change::UnlockKeyShown(_));
            state = after(&state, vec![change]);
            let cluster = state.cluster().expect("a cluster");
            let got = (cluster.trust.unlock.clone(), cluster.trust.unlock_before.clone());
            assert!(got == (want.0.map(sealed), want.1), "step {step}");
            assert_eq!(cluster.meta.version == version, is_shown, "step {step}");
            assert!(State::from_stored(state.to_stored()).is_some_and(|again| again == state));
        }
        refused(&State::default(), drawn(1), "not part of a cluster");
        refused(&State::default(), shown(1), "not part of a cluster");
    }

    #[test]
    fn what_a_node_trusts() {
        let trust = NodeTrust { issuer: [1; 32], roots: vec![[2; 32]], expires: at(9) };
        let state = after(&base(), vec![Change::NodeTrust { node: node(1), trust: trust.clone() }]);
        assert_eq!(state.node(node(1)).and_then(|node| node.trust.clone()), Some(trust.clone()));
        refused(&base(), Change::NodeTrust { node: node(99), trust }, "not found");
    }
}
