//! Settings: a flag, then a variable, then the default; and what refuses to start says what is wrong, and where.

use std::ffi::OsStr;
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};

use crate::BINARY;
use crate::support::instance::{self, Folder, Instance};

/// The binary with free ports and a folder of its own, for runs that end by themselves.
fn refusing(folder: &Folder) -> Command {
    let mut command = instance::command(OsStr::new(BINARY));
    command.args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data"]);
    command.arg(folder.path().join("data")).stdin(Stdio::null());
    command
}

/// Asserts that it refused with this exit code, naming all of this.
fn assert_refused(output: &Output, code: i32, named: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{text}");
    for name in named {
        assert!(text.contains(name), "{name:?} in {text:?}");
    }
}

#[test]
fn an_unknown_flag_refuses_to_start() {
    let folder = Folder::new();
    let output = refusing(&folder).arg("--colour").output().unwrap();
    assert_refused(&output, 2, &["--colour"]);
    assert!(!folder.path().join("data").exists(), "nothing was begun");
}

#[test]
fn an_unknown_variable_refuses_to_start() {
    let folder = Folder::new();
    let output = refusing(&folder)
        .env("BEQUEST_LISTNE", "127.0.0.1:0")
        .output()
        .unwrap();
    assert_refused(&output, 2, &["BEQUEST_LISTNE"]);
    assert!(!folder.path().join("data").exists(), "nothing was begun");
}

#[test]
fn the_switch_of_the_test_kit_is_no_setting_and_no_mistake() {
    let folder = Folder::new();
    let mut command = refusing(&folder);
    command.env("BEQUEST_REQUIRE_SERVERS", "1");
    let service = Instance::of(command);
    assert_eq!(service.get("/search?q=golang").status, 200);
}

#[test]
fn a_bad_value_is_named_with_its_setting() {
    let folder = Folder::new();
    for (name, value, flag, says) in [
        ("BEQUEST_DRAIN", "10", "--drain", "10"),
        ("BEQUEST_SEARCH", "ftp://example.test/", "--search", "not ftp://"),
        ("BEQUEST_REQUEST_LIMIT", "0s", "--request-limit", "0s"),
    ] {
        let output = refusing(&folder).env(name, value).output().unwrap();
        assert_refused(&output, 2, &[flag, says]);
    }
}

#[test]
fn a_password_in_a_url_is_refused_and_not_shown() {
    let folder = Folder::new();
    for name in ["BEQUEST_SEARCH", "BEQUEST_ISSUER"] {
        let output = refusing(&folder)
            .env(name, "https://ann:s3cret@example.test")
            .output()
            .unwrap();
        assert_refused(&output, 2, &["no password"]);
        assert!(!String::from_utf8_lossy(&output.stderr).contains("s3cret"));
    }
}

#[test]
fn a_file_of_authorities_that_holds_none_refuses_to_start() {
    let folder = Folder::new();
    let file = folder.path().join("authorities.pem");
    let refused = |says: &str| {
        let output = refusing(&folder).arg("--trust").arg(&file).output().unwrap();
        assert_refused(&output, 1, &["--trust", file.to_str().unwrap(), says]);
        assert!(!folder.path().join("data").exists(), "nothing was begun");
    };
    refused("No such file");
    std::fs::write(&file, "no certificate").unwrap();
    refused("there is no certificate in it");
}

#[test]
fn a_port_in_use_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    for flag in ["--listen", "--admin"] {
        let folder = Folder::new();
        let mut command = instance::command(OsStr::new(BINARY));
        let other = if flag == "--listen" { "--admin" } else { "--listen" };
        command
            .args([flag, &addr, other, "127.0.0.1:0", "--data"])
            .arg(folder.path());
        let output = command.stdin(Stdio::null()).output().unwrap();
        assert_refused(&output, 1, &[flag, &addr, "in use"]);
    }
}

#[test]
fn a_data_folder_that_is_a_file_is_named() {
    let folder = Folder::new();
    let data = folder.path().join("data");
    std::fs::write(&data, "a file").unwrap();
    let output = refusing(&folder).output().unwrap();
    assert_refused(&output, 1, &["the data folder", data.to_str().unwrap()]);
}

#[test]
fn a_data_file_that_is_no_database_is_named() {
    for file in ["service.sqlite", "search.sqlite"] {
        let folder = Folder::new();
        let data = folder.path().join("data");
        std::fs::create_dir(&data).unwrap();
        let path = data.join(file);
        std::fs::write(&path, "not a database, whatever its name says".repeat(100)).unwrap();
        let output = refusing(&folder).output().unwrap();
        assert_refused(&output, 1, &[data.to_str().unwrap(), "not a database"]);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("not a database"), "and it is left as it was");
    }
}

#[test]
fn data_is_there_after_a_restart() {
    let folder = Folder::new();
    let start = || {
        let mut command = instance::command(OsStr::new(BINARY));
        command.args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data"]);
        command.arg(folder.path().join("data"));
        Instance::of(command)
    };
    let mut first = start();
    assert_eq!(first.get("/store?key=kept&ms=10").status, 200);
    first.signal("TERM");
    assert!(first.ended().success());
    let second = start();
    assert_eq!(
        second.get("/search?q=golang").status,
        200,
        "the index is opened again, not made twice"
    );
    assert_eq!(
        second.get("/store?key=kept&ms=10").status,
        200,
        "the same key is written again"
    );
}

#[test]
fn a_variable_counts_and_a_flag_counts_more() {
    let free = || {
        TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .to_string()
    };
    let (by_variable, by_flag) = (free(), free());
    let folder = Folder::new();
    let start = |flags: &[&str]| {
        let mut command = instance::command(OsStr::new(BINARY));
        command
            .env("BEQUEST_LISTEN", &by_variable)
            .env("BEQUEST_ADMIN", "127.0.0.1:0");
        command
            .env("BEQUEST_DATA", folder.path().join("data"))
            .args(flags);
        Instance::of(command)
    };
    let service = start(&[]);
    assert_eq!(service.public.to_string(), by_variable);
    assert_eq!(service.get("/search?q=golang").status, 200);
    assert!(folder.path().join("data").is_dir());
    drop(service);
    let service = start(&["--listen", &by_flag]);
    assert_eq!(service.public.to_string(), by_flag);
    assert_eq!(service.get("/search?q=golang").status, 200);
}

#[test]
fn help_names_every_setting_both_ways() {
    let output = instance::command(OsStr::new(BINARY))
        .arg("--help")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stdout).unwrap();
    for name in [
        "listen",
        "admin",
        "data",
        "search",
        "trust",
        "request-limit",
        "search-limit",
        "job-limit",
        "drain",
        "no-inspect",
    ] {
        assert!(text.contains(&format!("--{name}")), "--{name} in\n{text}");
        let variable = format!("BEQUEST_{}", name.to_uppercase().replace('-', "_"));
        assert!(text.contains(&variable), "{variable} in\n{text}");
    }
}
