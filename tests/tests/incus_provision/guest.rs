//! The scripts that set a builder up, in a real guest, with a network and a package system that do
//! what a test wants: the test bed has neither.

use iapd::incus::Exec;
use std::time::Duration;

use crate::bed::Bed;
use crate::server::Server;

const COMMON: &str = include_str!("../../../daemon/src/guest/provision-common.sh");
const USER: &str = include_str!("../../../daemon/src/guest/provision-user.sh");
const SETUP: &str = include_str!("../../../daemon/src/guest/provision-setup.sh");
const DOCKER: &str = include_str!("../../../daemon/src/guest/provision-docker.sh");

/// A route, and mirrors that answer.
const UP: &str = "
wait_for_route() { return 0; }
apt_get() { [ \"$1\" = update ] || shift; echo \"apt-get $*\"; echo \"$*\" >>/tmp/installed; }
";
/// A route, and no mirror behind it.
const BROKEN: &str = "
wait_for_route() { return 0; }
mirror_patience=1
sleep() { command sleep 0.2; }
apt_get() {
    echo tried >>/tmp/tries
    echo \"E: Failed to fetch http://deb.example/Release  Could not resolve 'deb.example'\"
    echo 'E: Some index files failed to download.'
    return 100
}
";
const FAILING_DEPENDENCIES: &str = "
install -d -o agent -g agent /home/agent/bin
printf '#!/bin/sh\\necho libicu of another release\\nexit 1\\n' >/home/agent/bin/installdependencies.sh
chmod 755 /home/agent/bin/installdependencies.sh
";
const NO_LIBRARIES: &str = "ldconfig() { echo; }\n";
/// What the package lists know, and a docker to be installed.
const PACKAGES: &str = "
cat >/usr/local/bin/apt-cache <<'STUB'
#!/bin/sh
case $2 in
    libicu) printf 'libicu4j-java\\nlibicu-dev\\nlibicu72\\nlibicu67\\n' ;;
    docker-cli) printf 'docker-clippy\\ndocker-cli\\n' ;;
esac
STUB
chmod 755 /usr/local/bin/apt-cache
";
const DOCKER_COMES: &str = "
apt_install() {
    echo \"$*\"
    printf '#!/bin/sh\\necho Docker version 1\\n' >/usr/local/bin/docker
    chmod 755 /usr/local/bin/docker
}
";

/// Runs a script of ours after what is to be other than usual. Returns its exit code and output.
async fn run(bed: &Bed, instance: &str, otherwise: &str, script: &str) -> (i32, String) {
    let exec = Exec::root(["sh", "-c", &format!("{COMMON}\n{otherwise}\n{script}")]);
    let (code, stdout, stderr) = bed
        .project
        .exec_output(instance, &exec, Duration::from_secs(60), 65536)
        .await
        .unwrap();
    let text = String::from_utf8_lossy(&stdout) + String::from_utf8_lossy(&stderr);
    (code, text.into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_with_a_network_gets_what_it_lacks_or_says_why_not() {
    let server = Server::start().await;
    let bed = Bed::new(&server).await;
    let guest = bed.start("debian-min", "guest").await;
    let (code, said) = run(&bed, &guest, "", USER).await;
    assert_eq!(code, 0, "{said}");
    bed.run(&guest, FAILING_DEPENDENCIES).await;
    bed.run(&guest, PACKAGES).await;

    // Mirrors that do not answer are not a guest without a network.
    let (code, said) = run(&bed, &guest, BROKEN, DOCKER).await;
    let expected = "the package mirrors cannot be reached: Failed to fetch \
                    http://deb.example/Release  Could not resolve 'deb.example'";
    assert_eq!(code, 1, "{said}");
    assert_eq!(said.lines().last(), Some(expected), "{said}");
    let tries = bed.run(&guest, "wc -l </tmp/tries").await;
    assert!(tries.parse::<u32>().unwrap() > 1, "{tries} tries");
    let broken = format!("{BROKEN}{NO_LIBRARIES}");
    let (code, said) = run(&bed, &guest, &broken, SETUP).await;
    assert_eq!((code, said.lines().last()), (1, Some(expected)), "{said}");

    // The agent's list knows no ICU of this release: the base's own newest does.
    let up = format!("{UP}{NO_LIBRARIES}");
    let (code, said) = run(&bed, &guest, &up, SETUP).await;
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("libicu of another release"), "{said}");
    assert!(
        said.ends_with(" libicu72, agent's dependencies not checked\n"),
        "{said}"
    );
    let installed = bed.run(&guest, "cat /tmp/installed").await;
    assert!(
        installed.lines().any(|line| line.ends_with(" libicu72")),
        "{installed}"
    );

    // With the libraries there, nothing hangs on the network.
    let there = "ldconfig() { printf 'libssl.so.3 (x)\\nlibicuuc.so.72 (x)\\n'; }\ngit() { :; }\n";
    let (code, said) = run(&bed, &guest, &format!("{BROKEN}{there}"), SETUP).await;
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("libssl and libicu are there"), "{said}");

    let (code, said) = run(&bed, &guest, &format!("{UP}{DOCKER_COMES}"), DOCKER).await;
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("docker.io docker-cli\n"), "{said}");
    bed.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_an_earlier_agent_stays() {
    let server = Server::start().await;
    let bed = Bed::new(&server).await;
    let guest = bed.start("debian-min", "earlier").await;
    let (code, said) = run(&bed, &guest, "", USER).await;
    assert_eq!(code, 0, "{said}");
    let earlier = "cd /home/agent && mkdir -p bin externals _diag _work/1/s && echo own >notes && \
                   touch _work/1/s/of-root .agent .credentials .credentials_rsaparams .service .env .path \
                   .proxy .proxycredentials .proxybypass .certificates";
    bed.run(&guest, earlier).await;
    let (code, said) = run(&bed, &guest, "", USER).await;
    assert_eq!(code, 0, "{said}");
    let left = bed
        .run(
            &guest,
            "cd /home/agent && ls -A | grep -vE '^\\.(bash|profile)' | xargs",
        )
        .await;
    assert_eq!(left, "notes");
    bed.end().await;
}
