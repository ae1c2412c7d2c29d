//! Asking a container to stop, with the signal that its image or service wants.

use containerd_client::services::v1::GetContainerRequest;
use containerd_client::services::v1::containers_client::ContainersClient;
use racimo_common::id::TaskId;
use racimo_common::signal;

use super::ctrd::{CtrdError, request, within};
use super::{Runtime, RuntimeError, label};
use crate::limits;

impl Runtime {
    /// Sends the signal that was noted when the container was made; SIGTERM if somebody else made it.
    /// A process that has ended gets none.
    pub async fn stop(&self, task: TaskId) -> Result<(), RuntimeError> {
        let mut containers = ContainersClient::new(self.connect().await?);
        let message = GetContainerRequest { id: task.to_string() };
        let got = within(limits::CTRD_CALL_MAX, containers.get(request(message, None))).await;
        let got = got.map_err(CtrdError::call("find the container"))?.into_inner();
        let kept = got.container.and_then(|container| label::read(&container.labels));
        self.kill(task, kept.map_or(signal::SIGTERM, |kept| kept.stop_signal)).await
    }
}
