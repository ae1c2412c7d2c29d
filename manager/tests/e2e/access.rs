//! The remote API: the docker CLI and `pi-mgr` over TLS, read-only, revoked, and strangers.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use crate::cluster::{SOON, wait};
use crate::lab::Lab;
use crate::lab::guard::Guard;
use crate::lab::manager::Verb;
use crate::lab::process::run;
use crate::support::{Said, busybox, docker, has, pi_mgr, pi_mgr_path, running, said};

/// What somebody far away has.
struct Access<'a> {
    lab: &'a Lab,
    directory: PathBuf,
    /// What `create` printed.
    page: String,
}

impl<'a> Access<'a> {
    fn new(lab: &'a Lab, name: &str, flags: &[&str]) -> Result<Self> {
        let directory = lab.directory.join(format!("access-{name}"));
        let out = directory.display().to_string();
        let line = [&["access", "create", "--out", &out], flags, &[name]].concat();
        let said = pi_mgr(lab, &line)?;
        ensure!(said.err.is_empty(), "it warns: {said:?}");
        Ok(Self { lab, directory, page: said.good()? })
    }

    fn file(&self, name: &str) -> String {
        self.directory.join(name).display().to_string()
    }

    fn host(&self) -> Result<String> {
        Ok(fs::read_to_string(self.directory.join("host"))?.trim().to_owned())
    }

    fn command(&self, program: &str) -> Result<Command> {
        let mut command = Command::new("timeout");
        command
            .args(["120", program])
            .env("DOCKER_HOST", self.host()?)
            .env("DOCKER_TLS_VERIFY", "1")
            .env("DOCKER_CERT_PATH", &self.directory)
            .env("DOCKER_CONFIG", self.lab.directory.join("docker-remote"))
            .env_remove("RACIMO_HOST")
            .stdin(Stdio::null());
        Ok(command)
    }

    /// The docker CLI by `DOCKER_CERT_PATH`.
    fn docker(&self, arguments: &[&str]) -> Result<Said> {
        said(self.command("docker")?.args(arguments))
    }

    /// `pi-mgr --context`.
    fn pi_mgr(&self, arguments: &[&str]) -> Result<Said> {
        said(self.pi_mgr_command()?.args(arguments))
    }

    fn pi_mgr_command(&self) -> Result<Command> {
        let mut command = self.command(&pi_mgr_path()?)?;
        command.arg("--context").arg(&self.directory).env("XDG_CONFIG_HOME", self.lab.directory.join("config"));
        Ok(command)
    }

    /// An open stream of events.
    fn events(&self, to: &Path) -> Result<Child> {
        let out = File::create(to)?;
        let errors = out.try_clone()?;
        Ok(self.command("docker")?.args(["events", "--since", "10m"]).stdout(out).stderr(errors).spawn()?)
    }
}

#[test]
#[ignore = "needs root"]
fn the_api_is_used_from_afar_by_those_who_may() -> Result<()> {
    let lab = Guard::cluster(1)?;
    let ann = Access::new(&lab, "ann", &[])?;
    let bob = Access::new(&lab, "bob", &["--read-only", "--expires", "90d"])?;
    files(&ann)?;
    docker_works(&lab, &ann)?;
    contexts(&ann)?;
    docker_py(&ann, &bob)?;
    looking_only(&lab, &bob)?;
    strangers(&lab, &ann)?;
    // The certificate is made anew, and everybody goes on.
    lab.manager().act(Verb::Kill)?;
    lab.manager().act(Verb::Start)?;
    wait(&lab, "the API to be there again", SOON, || Ok(ann.docker(&["service", "ls"])?.good().ok()));
    revoked(&lab, &ann, &bob)?;
    anew(&ann)?;
    written_down(&lab, &ann)
}

/// What `create` wrote: nobody else reads it, and another implementation takes it.
fn files(ann: &Access<'_>) -> Result<()> {
    let mode = |path: &str| fs::metadata(path).map(|file| file.permissions().mode() & 0o777);
    assert_eq!((mode(&ann.directory.display().to_string())?, mode(&ann.file("key.pem"))?), (0o700, 0o600));
    let (ca, certificate) = (ann.file("ca.pem"), ann.file("cert.pem"));
    run(&["openssl", "verify", "-x509_strict", "-purpose", "sslclient", "-CAfile", &ca, &certificate])?;
    let shown = run(&["openssl", "x509", "-noout", "-subject", "-in", &certificate])?;
    has(&shown, "OU = racimo-admin, CN = ann");
    has(&ann.page, &format!("DOCKER_HOST={} DOCKER_TLS_VERIFY=1 DOCKER_CERT_PATH=", ann.host()?));
    Ok(())
}

fn docker_works(lab: &Lab, ann: &Access<'_>) -> Result<()> {
    let image = busybox(lab);
    let command = ["sh", "-c", "echo hello from afar; sleep 100000"];
    ann.docker(&[&["service", "create", "-d", "-q", "--name", "far", &image], &command[..]].concat())?.good()?;
    running(lab, "far", 1);
    for line in [&["service", "ls"][..], &["node", "ls"], &["service", "ps", "far"]] {
        assert_eq!(ann.pi_mgr(line)?.good()?, pi_mgr(lab, line)?.good()?, "{line:?}");
    }
    has(&ann.docker(&["service", "ls"])?.good()?, "far");
    wait(lab, "its log from afar", SOON, || {
        Ok(ann.docker(&["service", "logs", "far"])?.good()?.contains("hello from afar").then_some(()))
    });
    // It shows what happened until a second ago.
    wait(lab, "the service's event", SOON, || {
        let events = ann.docker(&["events", "--since", "10m", "--until", "1s"])?.good()?;
        Ok(events.contains("service create").then_some(()))
    });
    has(&ann.pi_mgr(&["join-token", "worker"])?.good()?, "SWMTKN-1-");
    Ok(())
}

/// The line that `create` prints works as it stands.
fn contexts(ann: &Access<'_>) -> Result<()> {
    let line = ann.page.lines().map(str::trim).find(|line| line.starts_with("docker context create"));
    said(ann.command("sh")?.args(["-c", line.context("no line for a context")?]))?.good()?;
    let mut command = ann.command("docker")?;
    command.args(["--context", "ann", "service", "ls"]);
    for key in ["DOCKER_HOST", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"] {
        command.env_remove(key);
    }
    has(&said(&mut command)?.good()?, "far");
    Ok(())
}

/// Python's client, with the directory as the docker CLI takes it.
fn docker_py(ann: &Access<'_>, bob: &Access<'_>) -> Result<()> {
    let python = |access: &Access<'_>, what: &str| {
        let arguments = ["-c", include_str!("docker_py.py"), what, &busybox(access.lab)];
        // It would take these for the access's own.
        let mut command = access.command("python3")?;
        said(command.env_remove("REQUESTS_CA_BUNDLE").env_remove("CURL_CA_BUNDLE").args(arguments))
    };
    let wrote = python(ann, "write")?;
    ensure!(!wrote.err.contains("No module named"), "install python3-docker (make deps-test): {wrote:?}");
    assert_eq!(wrote.good()?, "board1 ready\nfar 1\nboard1 ready\nfar 1\npy 2 a=b\n");
    let refused = python(bob, "write")?.good()?;
    has(&refused, "board1 ready\nfar 1\npy 2 a=b\n403 access bob is read-only: it may look, but change nothing");
    has(&python(bob, "remove")?.good()?, "403 access bob is read-only");
    assert_eq!(python(ann, "remove")?.good()?, "board1 ready\nfar 1\nremoved\n");
    Ok(())
}

fn looking_only(lab: &Lab, bob: &Access<'_>) -> Result<()> {
    has(&bob.docker(&["service", "ls"])?.good()?, "far");
    let refusal = "access bob is read-only: it may look, but change nothing";
    has(&bob.docker(&["service", "scale", "-d", "far=3"])?.bad()?.1, refusal);
    has(&bob.docker(&["service", "rm", "far"])?.bad()?.1, refusal);
    has(&bob.docker(&["swarm", "unlock-key"])?.bad()?.1, "it does not see what lets somebody in");
    let token = pi_mgr(lab, &["join-token", "-q", "worker"])?.good()?;
    let seen = bob.docker(&["swarm", "join-token", "worker"])?;
    assert!(!format!("{seen:?}").contains(token.trim()), "{seen:?}");
    has(&bob.pi_mgr(&["join-token", "worker"])?.bad()?.1, "does not see join tokens");
    has(&bob.pi_mgr(&["access", "create", "--out", &bob.file("eve"), "eve"])?.bad()?.1, refusal);
    assert!(!bob.directory.join("eve").exists(), "nothing of a refused access stays");
    has(&bob.pi_mgr(&["access", "log"])?.bad()?.1, "it does not see what lets somebody in");
    Ok(())
}

/// A request with curl: its status, if TLS came about.
fn curl(ann: &Access<'_>, arguments: &[&str]) -> Result<Option<String>> {
    let url = format!("{}/services", ann.host()?.replacen("tcp", "https", 1));
    let (ca, body) = (ann.file("ca.pem"), ann.file("body"));
    let line = ["-sS", "-m", "20", "--cacert", &ca, "-o", &body, "-w", "%{http_code}"];
    let said = said(Command::new("curl").args(line).args(arguments).arg(url))?;
    Ok((said.code == Some(0)).then_some(said.out))
}

fn strangers(lab: &Lab, ann: &Access<'_>) -> Result<()> {
    let pair = |cert: String, key: String| ["--cert".to_owned(), cert, "--key".to_owned(), key];
    let ask = |pair: [String; 4]| curl(ann, &pair.each_ref().map(String::as_str));
    assert_eq!(ask(pair(ann.file("cert.pem"), ann.file("key.pem")))?.as_deref(), Some("200"));
    // A board's own certificate is of the same root.
    let identity = lab.board(1)?.data().join("identity");
    let board = |name: &str| identity.join(name).display().to_string();
    assert_eq!(ask(pair(board("cert.pem"), board("key.pem")))?.as_deref(), Some("403"));
    has(&fs::read_to_string(ann.file("body"))?, "this certificate is a node's");
    assert_eq!(curl(ann, &[])?, None, "nobody gets in without a certificate");
    // The same names, of another root.
    let (key, certificate) = (ann.file("forged.key"), ann.file("forged.pem"));
    let subject = run(&["openssl", "x509", "-noout", "-subject", "-nameopt", "compat", "-in", &ann.file("cert.pem")])?;
    let subject = subject.trim().trim_start_matches("subject=").trim().to_owned();
    let make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
    run(&[&make[..], &["-days", "9", "-subj", &subject, "-keyout", &key, "-out", &certificate]].concat())?;
    assert_eq!(ask(pair(certificate, key))?, None);
    // And a client does not talk to another cluster.
    let other = lab.directory.join("access-other");
    fs::create_dir(&other)?;
    for name in ["cert.pem", "key.pem", "host"] {
        fs::copy(ann.file(name), other.join(name))?;
    }
    fs::copy(ann.file("forged.pem"), other.join("ca.pem"))?;
    let wrong = Access { lab, directory: other, page: String::new() };
    has(&wrong.pi_mgr(&["node", "ls"])?.bad()?.1, "not of the cluster of this context");
    has(&wrong.docker(&["node", "ls"])?.bad()?.1, "certificate signed by unknown authority");
    Ok(())
}

fn revoked(lab: &Lab, ann: &Access<'_>, bob: &Access<'_>) -> Result<()> {
    let to = lab.directory.join("events-of-bob");
    let mut events = bob.events(&to)?;
    docker(lab, &["service", "update", "-d", "-q", "--label-add", "a=b", "far"])?.good()?;
    wait(lab, "an event", SOON, || Ok(fs::read_to_string(&to)?.contains("service update").then_some(())));
    assert!(events.try_wait()?.is_none(), "it goes on");
    let to = lab.directory.join("our-events-of-bob");
    let out = File::create(&to)?;
    let errors = out.try_clone()?;
    let mut ours = bob.pi_mgr_command()?.args(["events", "--since", "10m"]).stdout(out).stderr(errors).spawn()?;
    wait(lab, "an event", SOON, || Ok(fs::read_to_string(&to)?.contains("service update").then_some(())));
    assert_eq!(ann.pi_mgr(&["access", "revoke", "bob"])?.good()?, "bob\n");
    wait(lab, "the open stream to end", SOON, || Ok(events.try_wait()?));
    assert_eq!(wait(lab, "our open stream to end", SOON, || Ok(ours.try_wait()?)).code(), Some(1));
    has(&fs::read_to_string(&to)?, "Error: access bob was revoked");
    has(&bob.docker(&["service", "ls"])?.bad()?.1, "access bob was revoked");
    has(&bob.pi_mgr(&["service", "ls"])?.bad()?.1, "access bob was revoked");
    let list = pi_mgr(lab, &["access", "ls", "--format", "{{.Name}} {{.Role}}"])?.good()?;
    assert_eq!(list, "ann admin\n");
    Ok(())
}

/// What is said to do about an access that was revoked works, and only about such a one.
fn anew(ann: &Access<'_>) -> Result<()> {
    let (create, list) = (["access", "create", "-q", "eve"], ["--context", "eve", "service", "ls"]);
    ann.pi_mgr(&create)?.good()?;
    has(&ann.pi_mgr(&create)?.bad()?.1, "access eve already exists: `pi-mgr access revoke eve` first");
    ann.pi_mgr(&["access", "revoke", "eve"])?.good()?;
    ann.pi_mgr(&create)?.good()?;
    let program = pi_mgr_path()?;
    let by_name = |arguments: &[&str]| {
        said(ann.command(&program)?.env("XDG_CONFIG_HOME", ann.lab.directory.join("config")).args(arguments))
    };
    has(&by_name(&list)?.good()?, "far");
    has(&by_name(&["--context", "eva", "service", "ls"])?.bad()?.1, "there is no such context");
    has(&by_name(&["-H", &ann.host()?, "service", "ls"])?.bad()?.1, "does not speak plain HTTP");
    // Names are asked for with the certificate, too.
    has(&by_name(&["--context", "eve", "service", "logs", "far"])?.good()?, "| hello from afar");
    by_name(&["--context", "eve", "access", "revoke", "eve"])?.good()?;
    Ok(())
}

fn written_down(lab: &Lab, ann: &Access<'_>) -> Result<()> {
    ann.docker(&["service", "rm", "far"])?.good()?;
    let log = ann.pi_mgr(&["access", "log"])?.good()?;
    let file = fs::read_to_string(lab.manager().data().join("manager/audit.log"))?;
    // Reading it is kept, too.
    assert!(file.starts_with(&log) && file.lines().count() == log.lines().count() + 1, "{log}\n{file}");
    let line = |parts: &[&str]| {
        let found = file.lines().any(|line| parts.iter().all(|part| line.contains(part)));
        ensure!(found, "no line with {parts:?} in:\n{file}");
        Ok(())
    };
    line(&["\tunix uid=0\tPOST\t/racimo/access\t201\tann"])?;
    line(&["\taccess ann@", "\tPOST\t", "/services/create\t201\tfar"])?;
    line(&["\taccess ann@", "\tDELETE\t", "/services/far\t200\tfar"])?;
    line(&["\taccess bob@", "\tPOST\t", "\t403\tfar"])?;
    line(&["\taccess ann@", "\tDELETE\t/racimo/access/bob\t204\tbob"])?;
    let key = fs::read_to_string(ann.file("key.pem"))?;
    let secret = key.lines().nth(1).context("a key")?;
    let manager = fs::read_to_string(lab.manager().log())?;
    assert!(!file.contains(secret) && !manager.contains(secret), "no key where it does not belong");
    Ok(())
}
