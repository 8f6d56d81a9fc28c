use std::path::Path;

use super::*;

fn hosts(book: &str, given: &[&str]) -> Result<Vec<String>, String> {
    let given: Vec<String> = given.iter().map(|&text| text.to_owned()).collect();
    let book = Book::parse(book).map_err(|error| error.to_string())?;
    let hosts = book
        .hosts(&given, Path::new("/run/here.sock"))
        .map_err(|error| error.to_string())?;
    let text = |host: Host| match host.way {
        Way::Socket(path) => format!("{} = {}", host.name, path.display()),
        Way::Ssh(target) => format!("{} = {target}", host.name),
    };
    Ok(hosts.all.into_iter().map(text).collect())
}

#[test]
fn a_host_is_an_address_a_socket_a_name_or_a_group() {
    let book = "
hosts:
  db: ssh://ana@db.example.org:2222/srv/iapd.sock
groups:
  linux: [db, build-2, local]
";
    assert_eq!(
        hosts(
            book,
            &["unix:///run/x.sock", "@linux", "ssh://[fe80::1]:22"]
        )
        .unwrap(),
        [
            "/run/x.sock = /run/x.sock",
            "db = ssh://ana@db.example.org:2222/srv/iapd.sock",
            "build-2 = ssh://build-2",
            "local = /run/here.sock",
            "fe80::1 = ssh://[fe80::1]:22",
        ]
    );
}

#[test]
fn a_host_that_is_meant_twice_is_asked_once() {
    let book = "groups: {a: [one, two], b: [two, 'ssh://one']}";
    assert_eq!(
        hosts(book, &["@a", "@b"]).unwrap(),
        ["one = ssh://one", "two = ssh://two"]
    );
}

#[test]
fn hosts_of_the_same_name_are_told_apart() {
    assert_eq!(
        hosts("", &["ssh://one:22", "ssh://one:23"]).unwrap(),
        ["ssh://one:22 = ssh://one:22", "ssh://one:23 = ssh://one:23"]
    );
}

#[test]
fn a_group_that_is_not_there_is_told_with_those_that_are() {
    let error = hosts("groups: {a: [one], b: []}", &["@c"]).unwrap_err();
    assert_eq!(error, "there is no group @c");
    let error = hosts("groups: {a: [one], b: []}", &["@b"]).unwrap_err();
    assert_eq!(error, "nobody is in group @b");
}

#[test]
fn what_ssh_or_a_shell_could_take_for_something_else_is_refused() {
    for wrong in [
        "ssh://-oProxyCommand=x",
        "ssh://-l@host",
        "ssh://ana@-host",
        "ssh://ana:secret@host",
        "ssh://host:port",
        "ssh://host:0",
        "ssh://",
        "ssh://host name",
        "ssh://$(x)",
        "ssh://host/run/a b.sock",
        "ssh://host/run/';x",
        "ssh://[::1",
        "tcp://host:1",
        "unix://run/x.sock",
        "",
    ] {
        assert!(hosts("", &[wrong]).is_err(), "{wrong}");
    }
}

#[test]
fn a_hosts_file_with_unknown_keys_is_refused_and_an_empty_one_is_not() {
    assert!(hosts("host: {}", &["local"]).is_err());
    assert!(hosts("", &["local"]).is_ok());
    assert!(hosts("# nothing yet\n", &["local"]).is_ok());
}
