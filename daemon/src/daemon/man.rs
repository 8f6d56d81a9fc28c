//! The daemon's manual page, out of the definition of its command line.

use clap::CommandFactory;
use clap::builder::Resettable;
use clap_mangen::Man;

use crate::args::Args;

/// What a command line's definition does not say.
const MORE: &str = r#".SH "EXIT STATUS"
.TP
.B 0
Stopped as asked.
.TP
.B 1
Failed.
.TP
.B 2
Wrong usage or configuration.
.SH "SIGNALS"
.TP
.B SIGHUP
Reads the configuration again. A wrong one changes nothing.
.TP
.B SIGTERM, SIGINT
Stop the daemon. Agents keep running, jobs go on; a daemon that starts again finds them.
.SH "FILES"
.TP
.I /etc/iapd/config.yaml
Which pools there are, see
.BR iapd\-config (5).
.TP
.I /etc/iapd/credentials/
Files with tokens and with the key for a remote Incus, readable by root only; systemd shows them to
the daemon when it starts.
.TP
.I /run/iapd/iapd.sock
Where
.BR iapctl (1)
finds the daemon. The members of group
.B iapd
may use it.
.TP
.I /run/iapd/iapd\-view.sock
The same for the members of group
.BR iapd\-view ,
who may look and change nothing.
.TP
.I /var/lib/iapd/
History, evidence of ended agents, images being made. Deleting it loses history, never agents.
.SH "ENVIRONMENT"
.TP
.B HTTPS_PROXY, HTTP_PROXY, NO_PROXY
Proxies on the way to Azure DevOps.
.TP
.B INCUS_SOCKET
Incus's socket, unless the configuration names one.
.TP
.B CREDENTIALS_DIRECTORY
Set by systemd: where relative paths of credentials in the configuration begin.
.SH "SEE ALSO"
.BR iapctl (1),
.BR iapd\-config (5),
.BR incus (1),
.BR systemd\-creds (1)
"#;

/// Returns the page as roff.
pub(super) fn page() -> String {
    let mut page = Vec::new();
    Man::new(Args::command().after_help(Resettable::Reset))
        .section("8")
        .manual("iapd")
        .render(&mut page)
        .expect("writing to memory does not fail");
    String::from_utf8_lossy(&page).into_owned() + MORE
}
