//! `--publish`: Docker's short and long syntax → ports of the service specification. Pure.

use std::net::IpAddr;

use clap::Args;
use racimo_common::object::{Port, PortMode, Protocol};
use serde_json::{Value, json};

use super::super::json::{Peek, place, set, unset};
use super::super::parse;

/// What one `--publish` says: a range is several ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ports(Vec<Port>);

/// Flags of `service create`.
#[derive(Args, Debug, Default)]
pub(crate) struct NewPorts {
    /// Publish a port on every board, or on those of its tasks: 80:80, 80:80/udp, 8000-8010:8000-8010, 80 (any free
    /// port outside), published=80,target=80,protocol=tcp,mode=ingress|host
    #[arg(short, long, value_name = "PORT", value_parser = parse)]
    pub(crate) publish: Vec<Ports>,
}

/// Flags of `service update`.
#[derive(Args, Debug, Default, PartialEq)]
pub(crate) struct PortChanges {
    /// Publish another port (as --publish of `service create`)
    #[arg(long, value_name = "PORT", value_parser = parse)]
    pub(crate) publish_add: Vec<Ports>,
    /// Publish a port of the container no longer: 80, 80/udp, or target=80,mode=host
    #[arg(long, value_name = "PORT", value_parser = parse)]
    pub(crate) publish_rm: Vec<Ports>,
}

impl NewPorts {
    /// Fills a new specification.
    pub(super) fn apply(&self, spec: &mut Value) {
        let ports: Vec<Value> = all(&self.publish).map(body).collect();
        if !ports.is_empty() {
            set(spec, &["EndpointSpec", "Ports"], ports);
        }
    }
}

impl PortChanges {
    /// Removes, then adds what is not there; sorted as Docker does it.
    pub(super) fn apply(&self, spec: &mut Value) {
        if self.publish_add.is_empty() && self.publish_rm.is_empty() {
            return;
        }
        let mut ports = spec.list("/EndpointSpec/Ports").to_vec();
        // The port outside does not count: `--publish-rm 80` is enough for 8080:80.
        let same = |port: &Value, gone: &Port| {
            port.int("/TargetPort") == Some(gone.target.into())
                && protocol(port) == gone.protocol.name()
                && mode(port) == gone.mode.name()
        };
        ports.retain(|port| !all(&self.publish_rm).any(|gone| same(port, gone)));
        let there: Vec<String> = ports.iter().map(key).collect();
        ports.extend(all(&self.publish_add).map(body).filter(|port| !there.contains(&key(port))));
        ports.sort_by_cached_key(key);
        let endpoint = place(spec, &["EndpointSpec"]);
        if ports.is_empty() {
            unset(endpoint, &["Ports"]);
        } else {
            set(endpoint, &["Ports"], ports);
        }
    }
}

fn all(flags: &[Ports]) -> impl Iterator<Item = &Port> {
    flags.iter().flat_map(|ports| &ports.0)
}

fn protocol(port: &Value) -> &str {
    Some(port.text("/Protocol")).filter(|text| !text.is_empty()).unwrap_or(Protocol::Tcp.name())
}

fn mode(port: &Value) -> &str {
    Some(port.text("/PublishMode")).filter(|text| !text.is_empty()).unwrap_or(PortMode::Ingress.name())
}

/// What Docker sorts by, as a text.
fn key(port: &Value) -> String {
    let number = |pointer| port.int(pointer).unwrap_or(0);
    format!("{}:{}/{}/{}", number("/PublishedPort"), number("/TargetPort"), protocol(port), mode(port))
}

/// As the API takes it; a port that is chosen by the manager is left out.
pub(crate) fn body(port: &Port) -> Value {
    let mut body = json!({ "Protocol": port.protocol.name(), "TargetPort": port.target });
    if port.published != 0 {
        body["PublishedPort"] = port.published.into();
    }
    body["PublishMode"] = port.mode.name().into();
    body
}

/// Reads the value of `--publish`.
fn parse(text: &str) -> Result<Ports, String> {
    if text.contains('=') { long(text).map(|port| Ports(vec![port])) } else { short(text).map(Ports) }
}

/// `published=8080,target=80,protocol=udp,mode=host`.
fn long(text: &str) -> Result<Port, String> {
    let mut port = Port::default();
    for field in parse::fields(text)? {
        let (key, value) = field.split_once('=').ok_or_else(|| format!("invalid field: {field}"))?;
        let (key, value) = (key.to_lowercase(), value.to_lowercase());
        let number = |what: &str| -> Result<u16, String> {
            digits(&value).ok_or_else(|| format!("invalid {what} port ({value}): expected a port from 1 to 65535"))
        };
        match key.as_str() {
            "target" => port.target = number("target")?,
            "published" => port.published = number("published")?,
            "protocol" => {
                let bad = || format!("invalid protocol value '{value}': expected tcp, udp or sctp");
                port.protocol = Protocol::named(&value).ok_or_else(bad)?;
            }
            "mode" => {
                let known = [PortMode::Ingress, PortMode::Host].into_iter().find(|mode| mode.name() == value);
                let bad = || format!("invalid publish mode value ({value}): must be either 'ingress' or 'host'");
                port.mode = known.ok_or_else(bad)?;
            }
            _ => return Err(format!("invalid field key: {key}; expected target, published, protocol or mode")),
        }
    }
    if port.target == 0 { Err("missing mandatory field 'target'".to_owned()) } else { Ok(port) }
}

/// Reads `[[ADDRESS:]PUBLISHED:]TARGET[/PROTOCOL]`, where both may be ranges. A single target may be published on a
/// range; an address is refused, as Docker does for services.
pub(crate) fn short(text: &str) -> Result<Vec<Port>, String> {
    let (ports, protocol) = text.rsplit_once('/').unwrap_or((text, ""));
    let protocol = match protocol.to_lowercase().as_str() {
        "" => Protocol::Tcp,
        name => Protocol::named(name).ok_or_else(|| format!("the protocol must be tcp, udp or sctp, not {name}"))?,
    };
    let (published, target) = match ports.rsplit_once(':') {
        None => ("", ports),
        Some((published, target)) => match published.rsplit_once(':') {
            None => (published, target),
            Some((address, _)) => {
                let bare = address.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(address);
                return Err(match bare.parse::<IpAddr>() {
                    Ok(_) => "hostip is not supported: services listen on all addresses of every board".to_owned(),
                    Err(_) => format!("invalid IP address: {address}"),
                });
            }
        },
    };
    if target.is_empty() {
        return Err("no port specified".to_owned());
    }
    let bad = |text: &str| format!("expected a port from 1 to 65535, or a range of them, not {text:?}");
    let (first, last) = range(target).filter(|(first, _)| *first > 0).ok_or_else(|| bad(target))?;
    let port = |target, published| Port { protocol, target, published, ..Port::default() };
    // Nothing, or 0: the manager chooses.
    let outside = if published.is_empty() { (0, 0) } else { range(published).ok_or_else(|| bad(published))? };
    match outside {
        (0, 0) if published.is_empty() || first == last => Ok((first..=last).map(|target| port(target, 0)).collect()),
        (0, to) if to > 0 => Err(bad(published)),
        (from, to) if to - from == last - first => {
            Ok((first..=last).zip(from..=to).map(|(target, published)| port(target, published)).collect())
        }
        (from, to) if first == last => Ok((from..=to).map(|published| port(first, published)).collect()),
        _ => Err(format!("the ranges have different lengths: {published} and {target}")),
    }
}

/// `80` as (80, 80), `80-82` as (80, 82).
fn range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (digits(first)?, digits(last)?);
    (first <= last).then_some((first, last))
}

/// `80`, but not `+80`.
fn digits(text: &str) -> Option<u16> {
    text.parse().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, want: Result<&[&str], &str>) {
        match (parse(text), want) {
            (Ok(ports), Ok(want)) => {
                let got: Vec<String> = ports.0.iter().map(|port| key(&body(port))).collect();
                assert_eq!(got, want, "{text}");
            }
            (Err(error), Err(want)) => assert!(error.contains(want), "{text}: {error}"),
            (got, want) => panic!("{text}: {got:?}, not {want:?}"),
        }
    }

    #[test]
    fn what_a_flag_says() {
        check("80:80", Ok(&["80:80/tcp/ingress"]));
        check("80", Ok(&["0:80/tcp/ingress"]));
        check("5-6:1-2/UDP", Ok(&["5:1/udp/ingress", "6:2/udp/ingress"]));
        check("5-6:1", Ok(&["5:1/tcp/ingress", "6:1/tcp/ingress"]));
        check("65534-65535:65534-65535", Ok(&["65534:65534/tcp/ingress", "65535:65535/tcp/ingress"]));
        check("published=5,target=6,protocol=sctp,mode=host", Ok(&["5:6/sctp/host"]));
        check("127.0.0.1:80:80", Err("hostip is not supported"));
        check("[fe80::1]:80:80", Err("hostip is not supported"));
        check("::1:80:80", Err("hostip is not supported"));
        check("1:2:3", Err("invalid IP address: 1"));
        check("0-5:80", Err("expected a port"));
        check("80-81", Ok(&["0:80/tcp/ingress", "0:81/tcp/ingress"]));
        check("0:80", Ok(&["0:80/tcp/ingress"]));
        check("0-0:80", Ok(&["0:80/tcp/ingress"]));
        check("0:80-82", Err("the ranges have different lengths: 0 and 80-82"));
        check("0-0:80-82", Err("the ranges have different lengths: 0-0 and 80-82"));
        check("0-2:80-82", Err("expected a port"));
        check("published=+80,target=80", Err("invalid published port (+80)"));
        check("published=,target=80", Err("invalid published port ()"));
        check("published=0,target=80", Ok(&["0:80/tcp/ingress"]));
        check("+5:80", Err("expected a port"));
        check("80:0", Err("expected a port"));
        check("", Err("no port specified"));
        check("target=80,ip=1", Err("invalid field key: ip"));
        check("published=80", Err("missing mandatory field 'target'"));
    }

    #[test]
    fn changes_keep_an_order_that_makes_no_needless_update() {
        let mut spec = json!({"EndpointSpec": {}});
        let flags = |texts: &[&str]| texts.iter().map(|text| parse(text).expect("a port")).collect();
        let add = flags(&["9:9", "10:10", "80"]);
        PortChanges { publish_add: add, publish_rm: Vec::new() }.apply(&mut spec);
        let keys = |spec: &Value| spec.list("/EndpointSpec/Ports").iter().map(key).collect::<Vec<_>>();
        let want = ["0:80/tcp/ingress", "10:10/tcp/ingress", "9:9/tcp/ingress"];
        assert_eq!(keys(&spec), want);
        // One that is removed can be added again, with the same numbers or others.
        PortChanges { publish_add: flags(&["9:9"]), publish_rm: flags(&["9"]) }.apply(&mut spec);
        assert_eq!(keys(&spec), want);
        PortChanges { publish_add: Vec::new(), publish_rm: flags(&["9", "10", "80"]) }.apply(&mut spec);
        assert_eq!(spec, json!({"EndpointSpec": {}}));
    }
}
