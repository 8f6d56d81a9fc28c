//! Instances: looking at them, making, changing, starting, stopping and deleting them.

use std::time::Duration;

use hyper::Method;
use serde_json::json;
use tokio::time::Instant;

use super::error::{CallSite, IncusError};
use super::operations::{Operation, OperationId, Waited};
use super::requests::{InstancePatch, NewInstance, StopMode};
use super::transport::{Ask, path};
use super::types::{Instance, InstanceState, Profile, Status};
use super::{Project, found};

const CONSOLE_CAP: usize = 1024 * 1024;

impl Project {
    /// Lists its instances, without their run-time state. A project that does not exist is an
    /// error.
    pub async fn instances(&self) -> Result<Vec<Instance>, IncusError> {
        // Recursion 2 would add the state, which takes the server hundreds of times as long.
        let list = self.path(&["instances"], &[("recursion", "1")]);
        let instances: Vec<Instance> = self
            .transport()
            .sync(Ask::get("instance_list", list))
            .await?;
        // Incus 6.0 lists the instances of a project that does not exist: there are none.
        if instances.is_empty() {
            let project = path(&["projects", self.name()], &[]);
            self.transport()
                .done(Ask::get("project_get", project))
                .await?;
        }
        Ok(instances)
    }

    /// Asks for an instance.
    pub async fn instance(&self, name: &str) -> Result<Option<Instance>, IncusError> {
        let ask = Ask::get("instance_get", self.instance_path(name, &[], &[])).instance(name);
        found(self.transport().sync(ask).await)
    }

    /// Asks for the run-time state of an instance; not for hot paths.
    pub async fn state(&self, name: &str) -> Result<Option<InstanceState>, IncusError> {
        let path = self.instance_path(name, &["state"], &[]);
        found(
            self.transport()
                .sync(Ask::get("instance_state", path).instance(name))
                .await,
        )
    }

    /// Begins to make an instance. Problems with its name or its image show when the operation
    /// ends. Never repeated once it may have been sent: after an error that is transient, the
    /// instance may yet appear.
    pub async fn create(&self, new: &NewInstance) -> Result<OperationId, IncusError> {
        let target = new.target.as_deref().map(|target| ("target", target));
        let path = self.path(&["instances"], target.as_slice());
        let ask = Ask::new("instance_create", Method::POST, path)
            .instance(&new.name)
            .json(new.body());
        self.transport()
            .begin(ask)
            .await
            .map(|operation| operation.id)
    }

    /// Changes an instance. Must not be called before its creation has ended: that was seen to
    /// leave instances that cannot be deleted.
    pub async fn patch(&self, name: &str, patch: &InstancePatch) -> Result<(), IncusError> {
        let ask = Ask::new(
            "instance_patch",
            Method::PATCH,
            self.instance_path(name, &[], &[]),
        )
        .instance(name)
        .json(patch.body());
        self.transport().done(ask).await
    }

    /// Starts an instance and waits until it runs. One that runs already is left alone.
    pub async fn start(&self, name: &str, deadline: Duration) -> Result<(), IncusError> {
        let body = json!({"action": "start", "timeout": -1});
        let ask = self.state_change("instance_start", name, body);
        let Err(error) = self.carry_out(ask, deadline).await else {
            return Ok(());
        };
        match self.instance(name).await {
            Ok(Some(instance)) if instance.status.is_running() => Ok(()),
            _ => Err(error),
        }
    }

    /// Stops an instance and waits until it has. One that is stopped or gone is fine.
    pub async fn stop(
        &self,
        name: &str,
        mode: StopMode,
        deadline: Duration,
    ) -> Result<(), IncusError> {
        let body = match mode {
            StopMode::Force => json!({"action": "stop", "force": true, "timeout": -1}),
            StopMode::Clean { timeout } => {
                json!({"action": "stop", "force": false, "timeout": timeout.as_secs()})
            }
        };
        let ask = self.state_change("instance_stop", name, body);
        let Err(error) = self.carry_out(ask, deadline).await else {
            return Ok(());
        };
        match self.instance(name).await {
            Ok(None) => Ok(()),
            Ok(Some(instance)) if instance.status == Status::Stopped => Ok(()),
            _ => Err(error),
        }
    }

    /// Deletes a stopped instance and waits until it is gone. One that is gone already is fine.
    pub async fn delete(&self, name: &str, deadline: Duration) -> Result<(), IncusError> {
        let path = self.instance_path(name, &[], &[]);
        let ask = Ask::new("instance_delete", Method::DELETE, path).instance(name);
        let Err(error) = self.carry_out(ask, deadline).await else {
            return Ok(());
        };
        match self.instance(name).await {
            Ok(None) => Ok(()),
            _ => Err(error),
        }
    }

    /// Reads what an instance has written to its console since it was started.
    pub async fn console_log(&self, name: &str) -> Result<Vec<u8>, IncusError> {
        let path = self.instance_path(name, &["console"], &[("type", "log")]);
        let ask = Ask::get("console_log", path)
            .instance(name)
            .private()
            .part(0, CONSOLE_CAP);
        self.transport().call(ask).await.map(|answer| answer.body)
    }

    /// Asks for a profile.
    pub async fn profile(&self, name: &str) -> Result<Option<Profile>, IncusError> {
        let path = self.path(&["profiles", name], &[]);
        found(self.transport().sync(Ask::get("profile_get", path)).await)
    }

    fn state_change(&self, kind: &'static str, name: &str, body: serde_json::Value) -> Ask {
        let path = self.instance_path(name, &["state"], &[]);
        Ask::new(kind, Method::PUT, path).instance(name).json(body)
    }

    /// Begins an operation and waits until it has ended well.
    pub(super) async fn carry_out(
        &self,
        ask: Ask,
        deadline: Duration,
    ) -> Result<Operation, IncusError> {
        let end = Instant::now() + deadline;
        let call = ask.site();
        let limit = deadline.min(self.transport().limits().call);
        let operation = self.transport().begin(ask.within(limit)).await?;
        let left = end.saturating_duration_since(Instant::now());
        self.settle(&operation.id, call, left).await
    }

    /// Waits until an operation has ended well.
    pub(super) async fn settle(
        &self,
        id: &OperationId,
        call: Box<CallSite>,
        deadline: Duration,
    ) -> Result<Operation, IncusError> {
        match self.incus.wait(id, deadline).await? {
            Waited::Ended(operation) => operation.result().map_err(|error| match error {
                IncusError::Operation { message, .. } => IncusError::Operation { call, message },
                other => other,
            }),
            Waited::Forgotten => Err(IncusError::Forgotten {
                call,
                id: id.clone(),
            }),
            Waited::StillRunning => Err(IncusError::Unfinished {
                call,
                id: id.clone(),
                after: deadline,
            }),
        }
    }
}
