//! Incus itself: whether it answers, whether we may use it, and whether it is new enough.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use nix::unistd::{Gid, Group, Uid, User, geteuid};

use crate::incus::{IncusError, Server};
use crate::pool::spec::{DaemonSpec, IncusSpec, InstanceKind};

use super::Failure;
use super::check::{Check, Topic};

const REACHABLE: Topic = Topic {
    id: "incus-reachable",
    title: "Incus",
    why: "without Incus no agent can be made or removed; those that run go on",
};
const RIGHTS: Topic = Topic {
    id: "incus-rights",
    title: "Incus rights",
    why: "iapd makes and removes instances through Incus's socket, which is for root and its group, \
          or as a client whose certificate Incus trusts",
};
const VERSION: Topic = Topic {
    id: "incus-version",
    title: "Incus version",
    why: "iapd is written for the API of Incus 6.0 and later",
};
const TMPFS: Topic = Topic {
    id: "incus-tmpfs",
    title: "tmpfs",
    why: "a pool's tmpfsInGb needs the extension container_disk_tmpfs, or the way around it",
};
const VMS: Topic = Topic {
    id: "incus-vms",
    title: "virtual machines",
    why: "a pool with vm: true has no agents where Incus cannot run virtual machines",
};
const EVENTS: Topic = Topic {
    id: "incus-events",
    title: "Incus events",
    why: "without events agents are replaced by the timer only, seconds later",
};

/// Incus can size a tmpfs device.
const TMPFS_EXTENSION: &str = "container_disk_tmpfs";
/// Among the drivers of a server that can run virtual machines, `lxc | qemu`; see
/// `environment.driver` of `GET /1.0`.
const VM_DRIVER: &str = "qemu";
const VM_FIX: &str = "\
    ls -l /dev/kvm          # none: switch virtualisation on in the host's firmware\n\
    apt-get install incus   # Debian's incus-base comes without qemu\n\
    modprobe vhost_vsock\n\
    systemctl restart incus";
const OLDEST: (u32, u32) = (6, 0);

/// Who we are, and whose the socket is.
pub(super) struct Access {
    user: String,
    is_root: bool,
    /// The socket, or the URLs.
    place: String,
    /// Group and mode of the socket; `None` when it cannot be looked at.
    group: Option<(String, u32)>,
    /// The file of the certificate that a remote server has to trust.
    certificate: Option<String>,
}

impl Access {
    /// Looks at the socket and at this process.
    pub(super) fn look(spec: &DaemonSpec) -> Self {
        let uid = geteuid();
        let (socket, certificate) = match &spec.incus {
            IncusSpec::Socket(socket) => (std::fs::metadata(socket).ok(), None),
            IncusSpec::Remote(remote) => (None, Some(remote.client_cert.display().to_string())),
        };
        let group = socket.map(|found| {
            let name = group_name(found.gid());
            (name, found.permissions().mode() & 0o777)
        });
        Self {
            user: user_name(uid),
            is_root: uid.is_root(),
            place: spec.incus.to_string(),
            group,
            certificate,
        }
    }

    fn join_group(&self) -> String {
        let group = self
            .group
            .as_ref()
            .map_or("incus-admin", |(group, _)| group);
        format!("usermod -aG {group} {}\nsystemctl restart iapd", self.user)
    }
}

fn user_name(uid: Uid) -> String {
    let user = User::from_uid(uid).ok().flatten();
    user.map_or_else(|| uid.to_string(), |user| user.name)
}

fn group_name(gid: u32) -> String {
    let group = Group::from_gid(Gid::from_raw(gid)).ok().flatten();
    group.map_or_else(|| gid.to_string(), |group| group.name)
}

/// Judges the server's answer about itself.
pub(super) fn judge(
    answer: &Result<Server, Failure<IncusError>>,
    events: &BTreeMap<String, bool>,
    spec: &DaemonSpec,
    access: &Access,
) -> Vec<Check> {
    let server = match answer {
        Ok(server) => server,
        Err(failure) => return unreachable(failure, access),
    };
    let mut checks = vec![
        REACHABLE.ok(format!("answers on {}", access.place)),
        rights(server, access),
        version(&server.version),
    ];
    checks.extend(tmpfs(server, spec));
    checks.extend(virtual_machines(server, spec));
    checks.push(connected(events));
    checks
}

fn unreachable(failure: &Failure<IncusError>, access: &Access) -> Vec<Check> {
    let later = [&VERSION, &EVENTS].map(|topic| topic.skipped("Incus does not answer"));
    let is_permission = matches!(failure, Failure::Error(error) if error.is_not_permitted());
    let mut checks = if is_permission {
        let finding = format!("user {} may not use {}", access.user, access.place);
        vec![
            RIGHTS.error(finding, access.join_group()),
            REACHABLE.skipped("its socket may not be used"),
        ]
    } else {
        let fix = if access.certificate.is_some() {
            "there: systemctl status incus; incus config get core.https_address\n\
             another certificate there: incus.remote.serverCert in iapd's configuration"
        } else {
            "systemctl status incus\njournalctl -u incus -n 50"
        };
        vec![
            REACHABLE.error(failure.text(), fix),
            RIGHTS.skipped("Incus does not answer"),
        ]
    };
    checks.extend(later);
    checks
}

fn rights(server: &Server, access: &Access) -> Check {
    let socket = &access.place;
    if let Some(certificate) = &access.certificate {
        if server.is_trusted() {
            return RIGHTS.ok(format!("the certificate in {certificate} is trusted"));
        }
        let finding = format!("Incus does not trust the certificate in {certificate}");
        let fix = format!("there: incus config trust add-certificate {certificate}");
        return RIGHTS.error(finding, fix);
    }
    if !server.is_trusted() {
        let finding = format!("Incus does not trust user {} on {socket}", access.user);
        return RIGHTS.error(finding, access.join_group());
    }
    let by = match &access.group {
        _ if access.is_root => "iapd runs as root".to_owned(),
        Some((group, _)) => format!("user {} is in group {group}", access.user),
        None => format!("user {} is trusted", access.user),
    };
    match &access.group {
        Some((_, mode)) if mode & 0o006 != 0 => RIGHTS.warning(
            format!("every user of this host may use {socket} (mode {mode:04o}), which is as good as root"),
            format!("chmod o= {socket}"),
        ),
        _ => RIGHTS.ok(by),
    }
}

fn version(version: &str) -> Check {
    let mut numbers = version.split('.').map(str::parse);
    let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else {
        return VERSION.notice(format!("cannot tell what version {version:?} is"), "");
    };
    if (major, minor) < OLDEST {
        return VERSION.error(
            format!("Incus {version} is older than 6.0"),
            "apt-get install -t bookworm-backports incus    # Debian 12; 13 and Ubuntu 24.04 have 6.0",
        );
    }
    VERSION.ok(version)
}

fn tmpfs(server: &Server, spec: &DaemonSpec) -> Vec<Check> {
    let wanting = spec
        .pools
        .iter()
        .filter(|pool| pool.instance.tmpfs_gib.is_some());
    let judged = wanting.map(|pool| {
        let check = if server.has_extension(TMPFS_EXTENSION) {
            TMPFS.ok("Incus can size a tmpfs")
        } else if pool.instance.kind == InstanceKind::Container {
            TMPFS.ok(format!(
                "Incus {} cannot size a tmpfs; it is mounted by raw.lxc instead",
                server.version
            ))
        } else {
            TMPFS.warning(
                format!(
                    "Incus {} cannot size a tmpfs: these virtual machines have none",
                    server.version
                ),
                "upgrade Incus, or take tmpfsInGb out of the pool",
            )
        };
        check.about(&pool.name)
    });
    judged.collect()
}

fn virtual_machines(server: &Server, spec: &DaemonSpec) -> Vec<Check> {
    let wanting = spec
        .pools
        .iter()
        .filter(|pool| pool.instance.kind == InstanceKind::VirtualMachine);
    let drivers: Vec<&str> = server.driver.split('|').map(str::trim).collect();
    let judged = wanting.map(|pool| {
        let check = if drivers.contains(&VM_DRIVER) {
            VMS.ok("Incus can run them")
        } else if server.driver.is_empty() {
            VMS.skipped("Incus does not say what it can run")
        } else {
            let only = &server.driver;
            VMS.error(
                format!("Incus runs no virtual machines here, only {only}"),
                VM_FIX,
            )
        };
        check.about(&pool.name)
    });
    judged.collect()
}

fn connected(events: &BTreeMap<String, bool>) -> Check {
    let lost: Vec<&str> = events
        .iter()
        .filter(|(_, connected)| !**connected)
        .map(|(project, _)| project.as_str())
        .collect();
    if events.is_empty() {
        EVENTS.skipped("no pool listens yet")
    } else if lost.is_empty() {
        EVENTS.ok("connected")
    } else {
        EVENTS.warning(
            format!("not connected for project {}", lost.join(", ")),
            "it reconnects by itself; if it does not: journalctl -u iapd -n 50",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::Severity;
    use super::super::tests::{daemon, pool, severities};
    use super::*;

    fn access(mode: u32) -> Access {
        Access {
            user: "iapd".into(),
            is_root: false,
            place: "/run/incus.socket".into(),
            group: Some(("incus-admin".into(), mode)),
            certificate: None,
        }
    }

    fn server(version: &str) -> Server {
        Server {
            version: version.into(),
            auth: "trusted".into(),
            ..Server::default()
        }
    }

    #[test]
    fn versions_from_6_0_on_will_do() {
        let cases = [
            ("6.0.4", Severity::Ok),
            ("7.0", Severity::Ok),
            ("10.1", Severity::Ok),
            ("5.21", Severity::Error),
            ("0.7", Severity::Error),
            ("rolling", Severity::Notice),
        ];
        for (text, expected) in cases {
            assert_eq!(version(text).severity, expected, "{text}");
        }
    }

    #[test]
    fn an_untrusted_user_is_told_the_group_and_an_open_socket_is_told_on() {
        let stranger = Server {
            auth: "untrusted".into(),
            ..server("6.0.4")
        };
        let check = rights(&stranger, &access(0o660));
        assert_eq!(check.severity, Severity::Error);
        assert_eq!(
            check.fix,
            "usermod -aG incus-admin iapd\nsystemctl restart iapd"
        );
        assert_eq!(
            rights(&server("6.0"), &access(0o660)).severity,
            Severity::Ok
        );
        assert_eq!(
            rights(&server("6.0"), &access(0o666)).severity,
            Severity::Warning
        );
    }

    #[test]
    fn a_remote_server_that_does_not_trust_us_is_told_how_to() {
        let remote = Access {
            place: "https://10.0.0.1:8443".into(),
            group: None,
            certificate: Some("/etc/iapd/credentials/incus-client.crt".into()),
            ..access(0)
        };
        let stranger = Server {
            auth: "untrusted".into(),
            ..server("6.0.4")
        };
        let check = rights(&stranger, &remote);
        assert_eq!(check.severity, Severity::Error);
        assert_eq!(
            check.fix,
            "there: incus config trust add-certificate /etc/iapd/credentials/incus-client.crt"
        );
        assert_eq!(rights(&server("6.0"), &remote).severity, Severity::Ok);
    }

    #[test]
    fn a_tmpfs_in_a_vm_needs_the_extension_and_one_in_a_container_does_not() {
        let mut vm = pool("vm");
        vm.instance.kind = InstanceKind::VirtualMachine;
        vm.instance.tmpfs_gib = Some(2);
        let mut container = pool("c");
        container.instance.tmpfs_gib = Some(2);
        let spec = daemon(vec![vm, container, pool("none")]);
        let old = tmpfs(&server("6.0.4"), &spec);
        assert_eq!(severities(&old), [Severity::Warning, Severity::Ok]);
        let mut new = server("7.0");
        new.api_extensions.insert(TMPFS_EXTENSION.into());
        assert_eq!(
            severities(&tmpfs(&new, &spec)),
            [Severity::Ok, Severity::Ok]
        );
    }

    #[test]
    fn a_pool_of_vms_needs_a_server_that_has_them_and_others_are_not_told() {
        let mut vm = pool("vm");
        vm.instance.kind = InstanceKind::VirtualMachine;
        let spec = daemon(vec![vm, pool("containers")]);
        for (driver, expected) in [
            ("lxc | qemu", Severity::Ok),
            ("lxc", Severity::Error),
            ("", Severity::Skipped),
        ] {
            let server = Server {
                driver: driver.into(),
                ..server("6.0.4")
            };
            let checks = virtual_machines(&server, &spec);
            assert_eq!(severities(&checks), [expected], "{driver:?}");
            assert_eq!(checks[0].subject, "vm");
        }
    }

    #[test]
    fn a_server_that_does_not_answer_is_an_error_and_the_rest_is_skipped() {
        let checks = judge(
            &Err(Failure::Late),
            &BTreeMap::new(),
            &daemon(vec![]),
            &access(0o660),
        );
        assert_eq!(checks[0].severity, Severity::Error);
        let rest = severities(&checks[1..]);
        assert!(
            rest.iter().all(|severity| *severity == Severity::Skipped),
            "{rest:?}"
        );
    }

    #[test]
    fn a_socket_that_may_not_be_used_is_told_once() {
        let denied = IncusError::Connect {
            call: Box::new(crate::incus::CallSite {
                kind: "server",
                instance: None,
                method: hyper::Method::GET,
                path: "/1.0".into(),
            }),
            at: "/run/incus.socket".into(),
            source: std::io::ErrorKind::PermissionDenied.into(),
        };
        let answer = Err(Failure::Error(denied));
        let checks = judge(&answer, &BTreeMap::new(), &daemon(vec![]), &access(0o660));
        let errors: Vec<&str> = checks
            .iter()
            .filter(|check| check.severity == Severity::Error)
            .map(|check| check.finding.as_str())
            .collect();
        assert_eq!(errors, ["user iapd may not use /run/incus.socket"]);
    }

    #[test]
    fn a_project_without_events_is_named() {
        let events = BTreeMap::from([("ci".to_owned(), true), ("qa".to_owned(), false)]);
        let check = connected(&events);
        assert_eq!(check.severity, Severity::Warning);
        assert_eq!(check.finding, "not connected for project qa");
    }
}
