//! Creating an instance, and finding out what became of that when an answer is lost.

use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, warn};

use crate::incus::{IncusError, OperationStatus, Waited};

use super::super::spec::InstanceKind;
use super::{ApplyError, Context, instance};

/// One look at a create operation; a create that outlives it is looked at again.
const CREATE_SLICE: Duration = Duration::from_secs(60);
/// When a create has not ended by then, its slot is given up; Incus may be wedged.
const CREATE_DEADLINE: Duration = Duration::from_secs(30 * 60);

/// Creates an agent's instance, or a spare one. Returns when its creation has ended: not before may
/// it be touched.
pub(super) async fn create(
    context: &Context,
    name: &str,
    member: Option<&str>,
    spare: bool,
) -> Result<(), ApplyError> {
    let body = instance::new_instance(context, name, member, spare).await?;
    let operation = match context.project.create(&body).await {
        Ok(operation) => operation,
        Err(error) if error.is_transient() => {
            // It may be running all the same.
            debug!(agent = name, %error, "lost the answer to a create, looking for it");
            return settle(context, name, error).await;
        }
        Err(source) => return Err(refused(context.spec.instance.kind, source)),
    };
    let began = Instant::now();
    loop {
        match context.incus.wait(&operation, CREATE_SLICE).await {
            Ok(Waited::Ended(ended)) if ended.status == OperationStatus::Success => return Ok(()),
            Ok(Waited::Ended(ended)) => {
                return Err(failed(context.spec.instance.kind, ended.err));
            }
            Ok(Waited::Forgotten) => return expect_instance(context, name).await,
            Ok(Waited::StillRunning) => {
                warn!(agent = name, elapsed = ?began.elapsed(), "creating the instance takes long");
            }
            Err(error) if error.is_transient() => {
                debug!(agent = name, %error, "cannot wait for a create, will look again");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            Err(source) => {
                return Err(ApplyError::Incus {
                    doing: "cannot wait for the create",
                    source,
                });
            }
        }
        if began.elapsed() > CREATE_DEADLINE {
            return Err(ApplyError::Create(
                "it has not ended for half an hour".into(),
            ));
        }
    }
}

/// A create that was not even begun.
fn refused(kind: InstanceKind, source: IncusError) -> ApplyError {
    match source {
        IncusError::Refused { message, .. } if lacks_virtual_machines(kind, &message) => {
            ApplyError::NoVirtualMachines(message)
        }
        source => ApplyError::Incus {
            doing: "cannot create the instance",
            source,
        },
    }
}

/// A create that ended in failure, in Incus's own words.
fn failed(kind: InstanceKind, words: String) -> ApplyError {
    if lacks_virtual_machines(kind, &words) {
        ApplyError::NoVirtualMachines(words)
    } else {
        ApplyError::Create(words)
    }
}

/// Both 6.0 and 7.0 say `Instance type "virtual-machine" is not supported on this server: <why>`, and
/// in their logs `Instance type not operational`.
fn lacks_virtual_machines(kind: InstanceKind, words: &str) -> bool {
    kind == InstanceKind::VirtualMachine
        && words.contains("Instance type")
        && (words.contains("not supported on this server") || words.contains("not operational"))
}

/// Finds out what became of a create whose answer was lost: it is over when no running operation
/// names the instance.
async fn settle(context: &Context, name: &str, lost: IncusError) -> Result<(), ApplyError> {
    let began = Instant::now();
    let mut quiet = 0;
    while began.elapsed() < CREATE_DEADLINE {
        // Two looks apart: the request itself may still be on its way.
        tokio::time::sleep(Duration::from_secs(1)).await;
        match context.incus.operations().await {
            Ok(operations) if operations.iter().any(|o| o.is_running_on(name)) => quiet = 0,
            Ok(_) => quiet += 1,
            Err(error) if error.is_transient() => {}
            Err(source) => {
                return Err(ApplyError::Incus {
                    doing: "cannot list operations",
                    source,
                });
            }
        }
        if quiet >= 2 {
            return match context.project.instance(name).await {
                Ok(Some(_)) => Ok(()),
                Ok(None) => Err(ApplyError::Incus {
                    doing: "cannot create the instance",
                    source: lost,
                }),
                Err(error) if error.is_transient() => continue,
                Err(source) => Err(ApplyError::Incus {
                    doing: "cannot look for the instance",
                    source,
                }),
            };
        }
    }
    Err(ApplyError::Incus {
        doing: "cannot create the instance",
        source: lost,
    })
}

async fn expect_instance(context: &Context, name: &str) -> Result<(), ApplyError> {
    let found = context
        .project
        .instance(name)
        .await
        .map_err(ApplyError::incus("cannot look for the created instance"))?;
    found.map(|_| ()).ok_or(ApplyError::Vanished)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEEN: &str = "Failed creating instance record: Instance type \"virtual-machine\" is not \
                        supported on this server: vhost_vsock kernel module not loaded";

    #[test]
    fn a_host_without_virtual_machines_is_told_with_what_to_do() {
        let error = failed(InstanceKind::VirtualMachine, SEEN.to_owned());
        assert!(matches!(error, ApplyError::NoVirtualMachines(_)), "{error}");
        let text = error.to_string();
        for words in ["vhost_vsock kernel module not loaded", "QEMU", "vm: false"] {
            assert!(text.contains(words), "{text}");
        }
    }

    #[test]
    fn other_failures_stay_in_the_servers_words() {
        let mismatch = "Requested image's type \"container\" doesn't match instance type \
                        \"virtual-machine\"";
        for (kind, words) in [
            (InstanceKind::VirtualMachine, mismatch),
            (InstanceKind::VirtualMachine, "Instance type unknown"),
            (InstanceKind::Container, SEEN),
        ] {
            let error = failed(kind, words.to_owned());
            assert!(matches!(error, ApplyError::Create(_)), "{error}");
            assert!(error.to_string().ends_with(words), "{error}");
        }
    }
}
