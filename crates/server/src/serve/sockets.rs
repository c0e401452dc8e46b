//! The sockets that the server listens on: those that the service manager has passed on, and what is missing of them.
//!
//! A service manager that holds the listening sockets keeps connections waiting while the server is started again
//! (`tests/cli/test_restart.py`). Each goes by its name (`LISTEN_FDNAMES`: mqtt, mqtts, http, admin), else to the setting
//! that has its address or its port. Invariant: each is served, or the server does not start.

use std::fmt;
use std::net::{self, SocketAddr};
use std::os::fd::AsFd;

use listenfd::ListenFd;
use tokio::net::TcpListener;

use super::ServeError;
use crate::listener::{adopt, bind};
use crate::settings::{Address, Settings};

/// The sockets, one for each listener that is on.
#[derive(Default)]
pub(super) struct Sockets {
    pub(super) mqtt: Option<TcpListener>,
    pub(super) mqtts: Option<TcpListener>,
    pub(super) http: Option<TcpListener>,
    pub(super) admin: Option<TcpListener>,
}

/// Where each listener that is on is bound: port 0 has become a real one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Addresses {
    pub(super) mqtt: Option<SocketAddr>,
    pub(super) mqtts: Option<SocketAddr>,
    pub(super) http: Option<SocketAddr>,
    pub(super) admin: Option<SocketAddr>,
}

/// Listening sockets that the service manager has passed on, or that this process has listened on before.
#[derive(Debug, Default)]
pub struct GivenSockets(Vec<Given>);

#[derive(Debug)]
struct Given {
    /// By what name; "" without one.
    name: String,
    socket: net::TcpListener,
    /// By this process.
    is_ours: bool,
}

/// A listener, and the setting of its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Which {
    Mqtt,
    Mqtts,
    Http,
    Admin,
}

const ALL: [Which; 4] = [Which::Mqtt, Which::Mqtts, Which::Http, Which::Admin];

impl GivenSockets {
    /// Those of the environment. To be called before there are other threads: it changes the environment.
    ///
    /// # Errors
    /// If one of them is no TCP socket that listens.
    pub fn from_environment() -> Result<Self, ServeError> {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let names: Vec<&str> = names.split(':').collect();
        let mut passed = ListenFd::from_env();
        let mut given = Vec::new();
        for index in 0..passed.len() {
            let name = names.get(index).copied().unwrap_or_default();
            let wrong = |why: &dyn fmt::Display| {
                ServeError::Given(format!(
                    "the service manager has passed on socket {} ({name}), which cannot be served: {why}",
                    index + 1
                ))
            };
            let socket = passed.take_tcp_listener(index).map_err(|why| wrong(&why))?;
            let socket = socket.ok_or_else(|| wrong(&"it was taken before"))?;
            if !socket2::SockRef::from(&socket)
                .is_listener()
                .unwrap_or(false)
            {
                return Err(wrong(&"it does not listen (is Accept=no set?)"));
            }
            given.push(Given {
                name: name.to_owned(),
                socket,
                is_ours: false,
            });
        }
        Ok(Self(given))
    }

    /// Those that other settings leave where they are.
    pub(super) fn unmoved(mut self, from: &Settings, to: &Settings) -> Self {
        let address = |name: &str, settings: &Settings| {
            let which = ALL.into_iter().find(|which| which.name() == name);
            which.and_then(|which| which.address(settings).map(|it| it.as_str().to_owned()))
        };
        self.0
            .retain(|given| address(&given.name, from) == address(&given.name, to));
        self
    }
}

impl Sockets {
    /// Takes what is given, and binds the rest.
    pub(super) async fn bind(settings: &Settings, given: GivenSockets) -> Result<Self, ServeError> {
        let mut sockets = Self::default();
        for Given {
            name,
            socket,
            is_ours,
        } in given.0
        {
            let address = socket.local_addr().map_err(ServeError::Io)?;
            let which = which(&name, address, settings).ok_or_else(|| {
                ServeError::Given(format!(
                    "the service manager has passed on a socket on {address} ({name}), and no setting has that address: \
                     name it mqtt, mqtts, http or admin (FileDescriptorName=)"
                ))
            })?;
            if which == Which::Mqtts && settings.tls.identity.is_none() {
                let why = "the service manager has passed on a socket for mqtts, which needs tls.cert and tls.key";
                return Err(ServeError::Given(why.to_owned()));
            }
            let socket = adopt(socket).map_err(ServeError::Io)?;
            if sockets.of(which).replace(socket).is_some() {
                return Err(ServeError::Given(format!(
                    "the service manager has passed on two sockets for {}: pass on one; [::] serves IPv4 too",
                    which.name()
                )));
            }
            if !is_ours {
                tracing::info!(%address, listener = which.name(), "this socket was passed on by the service manager");
            }
        }
        for which in ALL {
            let socket = sockets.of(which);
            if let (None, Some(address)) = (&socket, which.address(settings)) {
                let bound = bind(address.as_str()).await;
                *socket = Some(bound.map_err(|error| ServeError::Bind {
                    setting: which.setting(),
                    address: address.to_string(),
                    error,
                })?);
            }
        }
        Ok(sockets)
    }

    /// The same sockets once more: as long as they are held, connections wait.
    pub(super) fn kept(&self) -> Result<GivenSockets, ServeError> {
        let all = [&self.mqtt, &self.mqtts, &self.http, &self.admin];
        let there = ALL
            .into_iter()
            .zip(all)
            .filter_map(|(which, socket)| Some((which, socket.as_ref()?)));
        let kept = there.map(|(which, socket)| {
            let socket = socket.as_fd().try_clone_to_owned();
            Ok(Given {
                name: which.name().to_owned(),
                socket: socket.map_err(ServeError::Io)?.into(),
                is_ours: true,
            })
        });
        kept.collect::<Result<_, _>>().map(GivenSockets)
    }

    pub(super) fn addresses(&self) -> Result<Addresses, ServeError> {
        let address = |socket: &Option<TcpListener>| {
            let address = socket.as_ref().map(TcpListener::local_addr);
            address.transpose().map_err(ServeError::Io)
        };
        Ok(Addresses {
            mqtt: address(&self.mqtt)?,
            mqtts: address(&self.mqtts)?,
            http: address(&self.http)?,
            admin: address(&self.admin)?,
        })
    }

    fn of(&mut self, which: Which) -> &mut Option<TcpListener> {
        match which {
            Which::Mqtt => &mut self.mqtt,
            Which::Mqtts => &mut self.mqtts,
            Which::Http => &mut self.http,
            Which::Admin => &mut self.admin,
        }
    }
}

impl Addresses {
    /// Those that there are, each with its listener's name.
    pub(super) fn named(self) -> impl Iterator<Item = (&'static str, SocketAddr)> {
        let all = [self.mqtt, self.mqtts, self.http, self.admin];
        let named = ALL.map(Which::name).into_iter().zip(all);
        named.filter_map(|(name, address)| Some((name, address?)))
    }
}

impl Which {
    fn name(self) -> &'static str {
        self.setting().trim_start_matches("listen.")
    }

    fn setting(self) -> &'static str {
        match self {
            Self::Mqtt => "listen.mqtt",
            Self::Mqtts => "listen.mqtts",
            Self::Http => "listen.http",
            Self::Admin => "listen.admin",
        }
    }

    fn address(self, settings: &Settings) -> Option<&Address> {
        let listen = &settings.listen;
        match self {
            Self::Mqtt => listen.mqtt.as_ref(),
            Self::Mqtts => listen.mqtts.as_ref(),
            Self::Http => listen.http.as_ref(),
            Self::Admin => listen.admin.as_ref(),
        }
    }
}

/// What a socket is for. Without a name of ours: the listener that is set to its address, else the only one that is set
/// to its port (a socket unit that names a port has `[::]`).
fn which(name: &str, address: SocketAddr, settings: &Settings) -> Option<Which> {
    let named = |which: &Which| which.name() == name;
    if let Some(which) = ALL.into_iter().find(named) {
        return Some(which);
    }
    let set = |which: Which| which.address(settings).map(Address::as_str);
    let same = |which: &Which| set(*which).and_then(|it| it.parse().ok()) == Some(address);
    if let Some(which) = ALL.into_iter().find(same) {
        return Some(which);
    }
    let port = format!(":{}", address.port());
    let mut of_port = ALL
        .into_iter()
        .filter(|which| set(*which).is_some_and(|it| it.ends_with(&port)));
    of_port.next().filter(|_| of_port.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        let mut settings = Settings::default();
        settings.listen.mqtt = "0.0.0.0:1883".parse().ok();
        settings.listen.mqtts = "127.0.0.1:80".parse().ok();
        settings.listen.http = "127.0.0.2:80".parse().ok();
        settings.listen.admin = None;
        settings
    }

    #[test]
    fn a_socket_goes_where_its_name_or_its_address_says() {
        let of = |name: &str, address: &str| which(name, address.parse().unwrap(), &settings());
        assert_eq!(
            of("admin", "0.0.0.0:1883"),
            Some(Which::Admin),
            "its name comes first"
        );
        assert_eq!(of("jam-mqtt.socket", "[::]:1883"), Some(Which::Mqtt));
        assert_eq!(of("", "127.0.0.2:80"), Some(Which::Http));
        assert_eq!(of("unknown", "127.0.0.1:80"), Some(Which::Mqtts));
        assert_eq!(of("", "0.0.0.0:80"), None, "that could be two");
        assert_eq!(of("", "0.0.0.0:883"), None, "1883 ends alike");
        assert_eq!(of("MQTT", "0.0.0.0:8081"), None, "nothing is set to it");
    }

    #[tokio::test]
    async fn what_is_given_is_served_and_the_rest_is_bound() {
        let mut settings = settings();
        settings.listen.mqtts = None;
        settings.listen.http = "127.0.0.1:0".parse().ok();
        let give = |names: &[&str]| {
            let socket = || net::TcpListener::bind("127.0.0.1:0").unwrap();
            let given = names.iter().map(|name| Given {
                name: (*name).to_owned(),
                socket: socket(),
                is_ours: false,
            });
            GivenSockets(given.collect())
        };
        let given = give(&["mqtt"]);
        let address = given.0[0].socket.local_addr().unwrap();
        let sockets = Sockets::bind(&settings, given).await.unwrap();
        let mqtt = sockets.mqtt.unwrap();
        assert_eq!(mqtt.local_addr().unwrap(), address);
        assert!(
            socket2::SockRef::from(&mqtt).keepalive().unwrap(),
            "as on our own"
        );
        assert!(sockets.http.is_some() && sockets.mqtts.is_none());
        for (names, why) in [
            (&["mqtt", "mqtt"][..], "two sockets"),
            (&["mqtts"], "tls.cert"),
            (&["mqqt"], "FileDescriptorName="),
        ] {
            let error = Sockets::bind(&settings, give(names)).await.err().unwrap();
            assert!(error.to_string().contains(why), "{error}");
            assert_eq!(error.exit_status(), 78);
        }
    }
}
