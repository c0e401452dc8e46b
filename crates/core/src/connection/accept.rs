//! From a CONNECT to its CONNACK (PROTOCOL.md, section 3).

use std::num::{NonZeroU16, NonZeroU32};
use std::task::Waker;
use std::time::Duration;

use bytestring::ByteString;
use jam_wire::decode::DecodeError;
use jam_wire::packet::{ConnAck, ConnAckProperties, Connect, ConnectCode, Packet, Version};
use jam_wire::{ConnectReturnCode, ReasonCode, encode};

use super::aliases;
use super::established::Established;
use super::{Connection, End, Newcomer, Phase, Progress};
use crate::directory::{LifeFact, Question};
use crate::ids::ClientId;
use crate::link::Peer;
use crate::message::detach_will;
use crate::metrics::ConnectOutcome;
use crate::policy::{Identity, Refusal, Stop};
use crate::router::AttachOptions;
use crate::time::Time;
use crate::user::NotAttached;

impl Connection {
    pub(super) fn handle_connect(
        &mut self,
        newcomer: Box<Newcomer>,
        connect: Box<Connect>,
        now: Time,
    ) -> Progress {
        // Asked again each time the directory has answered: others may have failed meanwhile.
        if let Err(refusal) = self.router.pre_connect(newcomer.address.into(), now) {
            self.refuse_connect(&connect, &refusal);
            return Progress::Ready;
        }
        self.authenticate(newcomer, connect, now)
    }

    fn authenticate(
        &mut self,
        mut newcomer: Box<Newcomer>,
        connect: Box<Connect>,
        now: Time,
    ) -> Progress {
        if connect.properties.authentication_method.is_some() {
            // MQTT 5.0, section 4.12: there is no method here.
            self.deny(
                &connect,
                ReasonCode::BadAuthenticationMethod,
                ConnectReturnCode::NotAuthorized,
            );
            return Progress::Ready;
        }
        let client = ClientId::new(&connect.client_id);
        let source = newcomer.address.into();
        let verdict = self
            .router
            .authenticate(&client, &connect, &newcomer.answers, source, now);
        match verdict {
            Ok((identity, _)) if let Some(wait) = self.router.holds_back(&identity, now) => {
                newcomer.is_held_back = true;
                newcomer.deadline = self.awake(now) + wait;
                self.phase = Phase::Authenticating(newcomer, connect);
                Progress::Ready
            }
            Ok((identity, life)) => self.displace_or_accept(identity, life, newcomer, connect, now),
            Err(Stop::Refused(refusal)) => {
                self.refuse_connect(&connect, &refusal);
                Progress::Ready
            }
            Err(Stop::Ask(question)) => {
                self.phase = Phase::Authenticating(newcomer, connect);
                Progress::Ask(question)
            }
        }
    }

    /// What the displaced connections have sent came before this client: it is handled first. After that
    /// the account is asked again, for its token may have changed.
    fn displace_or_accept(
        &mut self,
        identity: Identity,
        life: LifeFact,
        mut newcomer: Box<Newcomer>,
        connect: Box<Connect>,
        now: Time,
    ) -> Progress {
        let success = code(
            connect.version,
            ReasonCode::Success,
            ConnectReturnCode::Accepted,
        );
        if !is_taken(&bare(success), &connect) {
            // A client that cannot be sent any CONNACK leaves the user's other devices connected.
            self.router
                .metrics()
                .connected(ConnectOutcome::Protocol, Some(connect.version));
            self.end(Some(shortened(&connect.client_id)), End::NoRoomForConnAck);
            return Progress::Ready;
        }
        if !newcomer.has_waited
            && let Some(displaced) = self.router.displace(&identity)
        {
            newcomer.has_waited = true;
            self.phase = Phase::Authenticating(newcomer, connect);
            return Progress::Displace(displaced);
        }
        let account = Question::Account(identity.user().clone());
        let peer = Peer {
            address: newcomer.address,
            version: connect.version,
            since: now,
            max_packet: connect
                .properties
                .maximum_packet_size
                .and_then(NonZeroU32::new),
        };
        let waker = newcomer.waker.clone();
        if self.accept(identity, life, &connect, peer, waker, success) {
            return Progress::Ready;
        }
        self.phase = Phase::Authenticating(newcomer, connect);
        Progress::Ask(account)
    }

    /// Whether that is settled: otherwise the account is to be asked again, for somebody else knows of a newer one.
    fn accept(
        &mut self,
        identity: Identity,
        life: LifeFact,
        connect: &Connect,
        peer: Peer,
        waker: Waker,
        code: ConnectCode,
    ) -> bool {
        let now = peer.since;
        let session_expiry = self.session_expiry(connect);
        let mut will = connect.will.clone();
        will.as_deref_mut().into_iter().for_each(detach_will);
        let options = AttachOptions {
            clean_start: connect.clean_start,
            session_expiry,
            will,
            life,
            peer,
        };
        let (link, attached) = match self.router.attach(identity, waker, options, now) {
            Ok(attached) => attached,
            Err(NotAttached::Outdated) => return false,
            Err(NotAttached::TooManyDevices) => {
                self.deny(
                    connect,
                    ReasonCode::QuotaExceeded,
                    ConnectReturnCode::ServerUnavailable,
                );
                return true;
            }
        };
        self.router
            .metrics()
            .connected(ConnectOutcome::Accepted, Some(connect.version));
        let properties = self.offer(connect, session_expiry);
        let session_present = attached.session_present;
        let conn_ack = Packet::ConnAck(Box::new(ConnAck {
            session_present,
            code,
            properties,
        }));
        let inflight = self.router.rules().inflight;
        let awake = self.awake(now);
        let mut established = Established::new(link, connect, attached, inflight, awake);
        let conn_ack = if established.fits(&conn_ack) {
            conn_ack
        } else {
            // Better an answer without what the server has not than none to a client that takes little.
            let properties = ConnAckProperties::default();
            Packet::ConnAck(Box::new(ConnAck {
                session_present,
                code,
                properties,
            }))
        };
        // A store in trouble keeps no client out.
        if attached.waits && self.router.can_store() {
            established.defer_connack(conn_ack, &self.router);
        } else {
            let _ = self.output.push(&conn_ack, connect.version);
            if session_present {
                established.deliver(&self.router, &mut self.output, now);
            }
        }
        self.phase = Phase::Established(Box::new(established));
        true
    }

    fn session_expiry(&self, connect: &Connect) -> Duration {
        let maximum = self.router.rules().session_expiry;
        match connect.version {
            Version::V5 => match connect.properties.session_expiry_secs.unwrap_or(0) {
                u32::MAX => maximum,
                secs => maximum.min(Duration::from_secs(secs.into())),
            },
            Version::V3 | Version::V4 if connect.clean_start => Duration::ZERO,
            Version::V3 | Version::V4 => maximum,
        }
    }

    /// What the server has and has not (MQTT 5.0, section 3.2.2.3).
    fn offer(&self, connect: &Connect, session_expiry: Duration) -> ConnAckProperties {
        let rules = self.router.rules();
        let asked = connect.properties.session_expiry_secs.unwrap_or(0);
        let granted = u32::try_from(session_expiry.as_secs()).unwrap_or(u32::MAX);
        ConnAckProperties {
            session_expiry_secs: (asked != granted).then_some(granted),
            receive_maximum: NonZeroU16::new(rules.inflight),
            maximum_packet_size: u32::try_from(rules.packet).ok(),
            topic_alias_maximum: Some(aliases::MAX_ALIASES),
            wildcard_subscription_available: Some(false),
            shared_subscription_available: Some(false),
            ..ConnAckProperties::default()
        }
    }

    /// Answers a CONNECT with a row of the table. A 5.0 client gets the error as the Reason String.
    pub(super) fn refuse_connect(&mut self, connect: &Connect, refusal: &Refusal) {
        let code = code(connect.version, refusal.reason, refusal.return_code);
        let reason_string = Some(ByteString::from(refusal.to_json(None)));
        let properties = ConnAckProperties {
            reason_string,
            ..ConnAckProperties::default()
        };
        let full = Packet::ConnAck(Box::new(ConnAck {
            session_present: false,
            code,
            properties,
        }));
        if is_taken(&full, connect) {
            self.push(&full, connect.version);
        } else {
            self.push_bare(connect, refusal.reason, refusal.return_code);
        }
        let client = shortened(&connect.client_id);
        self.router
            .metrics()
            .connect_refused(refusal, connect.version);
        self.end(Some(client), End::Refused(refusal.clone()));
    }

    /// Answers a CONNECT that is no packet, as far as it can be told in what version.
    pub(super) fn refuse_malformed(&mut self, error: &DecodeError, version: Option<Version>) {
        let (version, reason) = match (error, version) {
            // A client of a later version can be expected to read the answers of 5.0.
            (DecodeError::UnsupportedVersion(level), _) if *level > 5 && *level < 0x80 => {
                (Version::V5, error.reason())
            }
            (DecodeError::UnsupportedVersion(_), _) => (Version::V4, error.reason()),
            (_, Some(Version::V5)) => (Version::V5, error.reason()),
            _ => return,
        };
        let return_code = ConnectReturnCode::UnacceptableProtocolVersion;
        let code = code(version, reason, return_code);
        self.push(&bare(code), version);
    }

    fn deny(&mut self, connect: &Connect, reason: ReasonCode, return_code: ConnectReturnCode) {
        self.push_bare(connect, reason, return_code);
        let client = shortened(&connect.client_id);
        self.router
            .metrics()
            .connected(ConnectOutcome::Protocol, Some(connect.version));
        self.end(Some(client), End::Denied(reason));
    }

    /// Nothing, if the client takes not even that.
    fn push_bare(&mut self, connect: &Connect, reason: ReasonCode, return_code: ConnectReturnCode) {
        let conn_ack = bare(code(connect.version, reason, return_code));
        if is_taken(&conn_ack, connect) {
            self.push(&conn_ack, connect.version);
        }
    }

    fn push(&mut self, conn_ack: &Packet, version: Version) {
        self.output
            .push(conn_ack, version)
            .expect("a CONNACK of the server's own can be encoded");
    }
}

/// The client id as it is told in the log: of one that is too long, the beginning.
pub(super) fn shortened(client_id: &str) -> ClientId {
    ClientId::new(&client_id[..client_id.floor_char_boundary(ClientId::MAX_LEN)])
}

/// Whether a packet is no larger than the client takes (MQTT 5.0, section 3.1.2.11.4).
fn is_taken(packet: &Packet, connect: &Connect) -> bool {
    let max = connect.properties.maximum_packet_size;
    max.is_none_or(|max| {
        encode::encoded_len(packet, connect.version).is_ok_and(|len| len <= max as usize)
    })
}

fn code(version: Version, reason: ReasonCode, return_code: ConnectReturnCode) -> ConnectCode {
    match version {
        Version::V5 => ConnectCode::V5(reason),
        Version::V3 | Version::V4 => ConnectCode::V3(return_code),
    }
}

fn bare(code: ConnectCode) -> Packet {
    let properties = ConnAckProperties::default();
    Packet::ConnAck(Box::new(ConnAck {
        session_present: false,
        code,
        properties,
    }))
}
