//! Everything that sends the main loop something.

use std::path::Path;
use std::rc::Rc;

use async_channel::{Receiver, Sender};
use racimo_common::object::NodeDescription;
use smol::{LocalExecutor, Timer};

use super::Input;
use super::operations::Tools;
use crate::config::Config;
use crate::describe::{self, Own};
use crate::journal::Journal;
use crate::leave::Ask;
use crate::limits;
use crate::link::session::Link;
use crate::net::host::Host;
use crate::net::{Network, ports};
use crate::runtime::{self, Runtime};

/// Everything that sends inputs. Dropped with the main loop.
pub(super) fn feeders(
    executor: &Rc<LocalExecutor<'static>>,
    config: &Config,
    tools: &Rc<Tools>,
    link: Link,
    inputs: &Sender<Input>,
    stop: Receiver<()>,
    asks: Receiver<Ask>,
) -> Vec<smol::Task<()>> {
    let (told, link_says) = async_channel::bounded(limits::OUT_QUEUE_MAX);
    let (events, containerd_says) = async_channel::bounded(limits::INPUTS_MAX);
    let describe_again = {
        let (config, tools, inputs) = (config.clone(), tools.clone(), inputs.clone());
        async move {
            loop {
                let later = async {
                    Timer::after(limits::DESCRIBE_EVERY).await;
                };
                smol::future::or(tools.host.changed(), later).await;
                let description = describe(&config, &tools.runtime, &tools.network, &tools.host, &tools.journal).await;
                let description = Box::new(description);
                if inputs.send(Input::Described(description)).await.is_err() {
                    return;
                }
            }
        }
    };
    let stopped = {
        let inputs = inputs.clone();
        async move {
            if stop.recv().await.is_ok() {
                // The loop may be gone already.
                let _ = inputs.send(Input::Stop).await;
            }
        }
    };
    vec![
        executor.spawn(link.run(told)),
        executor.spawn(runtime::events::watch(tools.runtime.clone(), events)),
        executor.spawn(forward(link_says, inputs.clone(), Input::Link)),
        executor.spawn(forward(containerd_says, inputs.clone(), Input::Container)),
        executor.spawn(forward(asks, inputs.clone(), Input::Leave)),
        executor.spawn(describe_again),
        executor.spawn(tools.network.clone().drive(limits::NET_LOOK_EVERY)),
        executor.spawn(tools.host.clone().drive()),
        executor.spawn(tools.clone().tend_images()),
        executor.spawn(ports::relay::serve(tools.network.board_ports().clone(), executor.clone())),
        executor.spawn(stopped),
    ]
}

async fn forward<T>(from: Receiver<T>, to: Sender<Input>, wrap: fn(T) -> Input) {
    while let Ok(item) = from.recv().await {
        if to.send(wrap(item)).await.is_err() {
            return;
        }
    }
}

/// What is true of the board now.
pub(super) async fn describe(
    config: &Config,
    runtime: &Runtime,
    network: &Network,
    host: &Host,
    journal: &Journal,
) -> NodeDescription {
    let version = match runtime.connect().await {
        Ok(ctrd) => ctrd.version().await,
        Err(error) => Err(error),
    };
    let away = version.as_ref().err().map(ToString::to_string);
    let own = Own {
        labels: config.labels.clone(),
        containerd_version: version.unwrap_or_default(),
        tasks_max: u32::try_from(config.tasks_max).unwrap_or(u32::MAX),
        generic: config.generic.clone(),
        data_address: config.data_path_addr,
    };
    let mut description = describe::describe(Path::new("/"), own, runtime.degraded());
    if let Some(hostname) = &config.hostname {
        description.hostname.clone_from(hostname);
    }
    description.degraded.extend(away);
    description.degraded.extend(network.degraded());
    description.degraded.extend(journal.fault());
    host.describe(&mut description);
    runtime.cgroups().describe(&mut description);
    description
}
