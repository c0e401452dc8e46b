//! One rumqttc client of either protocol version; what happens to it comes as [`Event`]s.
//!
//! Owns the event loop's task. Every wait has [`PATIENCE`].

use std::time::Duration;

use rumqttc::{
    AsyncClient, ConnectionError, LastWill, MqttOptions, Outgoing, Packet, QoS, Transport, v5,
};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::server::{Outcome, Server, User};

const PATIENCE: Duration = Duration::from_secs(30);
const EVENTS: usize = 4096;
const PACKET_BYTES: u32 = 4 * 1024 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    V311,
    V5,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Tcp,
    Tls,
    Ws,
    Wss,
}

impl Way {
    pub(crate) fn is_tls(self) -> bool {
        matches!(self, Self::Tls | Self::Wss)
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event {
    In,
    Refused(String),
    Subscribed(String),
    Sent(u16),
    Acknowledged(u16, String),
    Message {
        topic: String,
        payload: Vec<u8>,
        qos: u8,
    },
    /// DISCONNECT, with its reason.
    Told(String),
    Gone(String),
}

#[derive(Clone)]
enum Client {
    V311(AsyncClient),
    V5(v5::AsyncClient),
}

pub(crate) struct Login<'a> {
    pub(crate) device: &'a str,
    pub(crate) client_id: Option<String>,
    pub(crate) token: Option<&'a str>,
    pub(crate) will: Option<&'a str>,
}

impl Default for Login<'_> {
    fn default() -> Self {
        Self {
            device: "phone",
            client_id: None,
            token: None,
            will: None,
        }
    }
}

pub(crate) struct Phone {
    pub(crate) user: User,
    client: Client,
    events: mpsc::Receiver<Event>,
    task: JoinHandle<()>,
    markers: u32,
}

impl Drop for Phone {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Phone {
    pub(crate) fn start(
        server: &Server,
        version: Version,
        way: Way,
        user: &User,
        login: Login<'_>,
    ) -> Outcome<Self> {
        let client_id = login
            .client_id
            .unwrap_or_else(|| user.client_id(login.device));
        let (host, port) = match way {
            Way::Tcp => ("localhost".to_owned(), server.mqtt),
            Way::Tls => ("localhost".to_owned(), server.mqtts),
            Way::Ws => (format!("ws://localhost:{}/mqtt", server.http), server.http),
            Way::Wss => (format!("wss://localhost:{}/mqtt", server.http), server.http),
        };
        let authority = server.authority()?;
        let transport = match way {
            Way::Tcp => Transport::tcp(),
            Way::Tls => Transport::tls(authority, None, None),
            Way::Ws => Transport::ws(),
            Way::Wss => Transport::wss(authority, None, None),
        };
        let token = login.token.unwrap_or(&user.token);
        let (sender, events) = mpsc::channel(EVENTS);
        let (client, task) = match version {
            Version::V311 => {
                let mut options = MqttOptions::new(client_id, host, port);
                let bytes = PACKET_BYTES as usize;
                options
                    .set_transport(transport)
                    .set_credentials(&user.id, token);
                options.set_max_packet_size(bytes, bytes);
                if let Some(topic) = login.will {
                    options.set_last_will(LastWill::new(topic, "gone", QoS::AtMostOnce, false));
                }
                let (client, events) = AsyncClient::new(options, EVENTS);
                (Client::V311(client), tokio::spawn(run_v311(events, sender)))
            }
            Version::V5 => {
                let mut options = v5::MqttOptions::new(client_id, host, port);
                options
                    .set_transport(transport)
                    .set_credentials(&user.id, token);
                options.set_max_packet_size(Some(PACKET_BYTES));
                if let Some(topic) = login.will {
                    let qos = v5::mqttbytes::QoS::AtMostOnce;
                    let will = v5::mqttbytes::v5::LastWill::new(topic, "gone", qos, false, None);
                    options.set_last_will(will);
                }
                let (client, events) = v5::AsyncClient::new(options, EVENTS);
                (Client::V5(client), tokio::spawn(run_v5(events, sender)))
            }
        };
        Ok(Self {
            user: user.clone(),
            client,
            events,
            task,
            markers: 0,
        })
    }

    pub(crate) async fn event(&mut self) -> Outcome<Event> {
        let event = timeout(PATIENCE, self.events.recv()).await?;
        event.ok_or_else(|| "the event loop has ended".into())
    }

    pub(crate) async fn subscribe(&mut self, topic: &str) -> Outcome<String> {
        match &self.client {
            Client::V311(client) => client.subscribe(topic, QoS::ExactlyOnce).await?,
            Client::V5(client) => {
                client
                    .subscribe(topic, v5::mqttbytes::QoS::ExactlyOnce)
                    .await?;
            }
        }
        match self.event().await? {
            Event::Subscribed(codes) => Ok(codes),
            other => Err(format!("expected SUBACK, got {other:?}").into()),
        }
    }

    /// Sends, and returns the packet id (0 at QoS 0). Neither the error nor the acknowledgement
    /// has been read then.
    pub(crate) async fn publish(&mut self, topic: &str, payload: Vec<u8>, qos: u8) -> Outcome<u16> {
        match &self.client {
            Client::V311(client) => {
                client
                    .publish(topic, rumqttc::qos(qos)?, false, payload)
                    .await?;
            }
            Client::V5(client) => {
                let qos = v5::mqttbytes::qos(qos).ok_or("no such QoS")?;
                client.publish(topic, qos, false, payload).await?;
            }
        }
        match self.event().await? {
            Event::Sent(id) => Ok(id),
            other => Err(format!("expected the PUBLISH to go out, got {other:?}").into()),
        }
    }

    pub(crate) async fn message(&mut self, topic: &str, payload: &[u8]) -> Outcome {
        match self.event().await? {
            Event::Message {
                topic: got,
                payload: body,
                ..
            } if got == topic && body == payload => Ok(()),
            other => Err(format!(
                "expected {topic} {}, got {other:?}",
                String::from_utf8_lossy(&payload[..payload.len().min(300)])
            )
            .into()),
        }
    }

    pub(crate) async fn acknowledged(&mut self, id: u16) -> Outcome<String> {
        match self.event().await? {
            Event::Acknowledged(got, reason) if got == id => Ok(reason),
            other => Err(format!("expected the acknowledgement of {id}, got {other:?}").into()),
        }
    }

    /// Publishes at QoS 1 what must be let through.
    pub(crate) async fn send(&mut self, topic: &str, payload: Vec<u8>) -> Outcome {
        let id = self.publish(topic, payload, 1).await?;
        assert_eq!(self.acknowledged(id).await?, "Success");
        Ok(())
    }

    /// Nothing is on its way to this client: what it writes to itself now comes back first.
    pub(crate) async fn quiet(&mut self) -> Outcome {
        self.markers += 1;
        let marker = self.user.message(format!("marker {}", self.markers));
        let inbox = self.user.inbox();
        let id = self.publish(&inbox, marker.clone(), 1).await?;
        for _ in 0..2 {
            match self.event().await? {
                Event::Acknowledged(got, reason) if got == id => assert_eq!(reason, "Success"),
                Event::Message { payload, .. } if payload == marker => {}
                other => return Err(format!("not quiet: {other:?}").into()),
            }
        }
        Ok(())
    }
}

async fn run_v311(mut events: rumqttc::EventLoop, sender: mpsc::Sender<Event>) {
    loop {
        match events.poll().await {
            Ok(event) => {
                if !pass_on(&sender, event_v311(event)).await {
                    return;
                }
            }
            Err(error) => {
                // What came in one read with the end of the connection is still in here.
                for event in events.state.events.drain(..) {
                    pass_on(&sender, event_v311(event)).await;
                }
                let end = match error {
                    ConnectionError::ConnectionRefused(code) => Event::Refused(format!("{code:?}")),
                    error => Event::Gone(error.to_string()),
                };
                pass_on(&sender, Some(end)).await;
                return;
            }
        }
    }
}

fn event_v311(event: rumqttc::Event) -> Option<Event> {
    let packet = match event {
        rumqttc::Event::Outgoing(Outgoing::Publish(id)) => return Some(Event::Sent(id)),
        rumqttc::Event::Outgoing(_) => return None,
        rumqttc::Event::Incoming(packet) => packet,
    };
    match packet {
        Packet::ConnAck(_) => Some(Event::In),
        Packet::SubAck(ack) => Some(Event::Subscribed(format!("{:?}", ack.return_codes))),
        Packet::PubAck(ack) => Some(Event::Acknowledged(ack.pkid, "Success".into())),
        Packet::PubComp(ack) => Some(Event::Acknowledged(ack.pkid, "Success".into())),
        Packet::Publish(message) => Some(Event::Message {
            topic: message.topic,
            payload: message.payload.to_vec(),
            qos: message.qos as u8,
        }),
        _ => None,
    }
}

async fn run_v5(mut events: v5::EventLoop, sender: mpsc::Sender<Event>) {
    loop {
        match events.poll().await {
            Ok(event) => {
                if !pass_on(&sender, event_v5(event)).await {
                    return;
                }
            }
            Err(error) => {
                for event in events.state.events.drain(..) {
                    pass_on(&sender, event_v5(event)).await;
                }
                let end = match error {
                    v5::ConnectionError::ConnectionRefused(code) => {
                        Event::Refused(format!("{code:?}"))
                    }
                    error => Event::Gone(error.to_string()),
                };
                pass_on(&sender, Some(end)).await;
                return;
            }
        }
    }
}

fn event_v5(event: v5::Event) -> Option<Event> {
    use v5::mqttbytes::v5::{Packet, PubRecReason};
    let packet = match event {
        v5::Event::Outgoing(Outgoing::Publish(id)) => return Some(Event::Sent(id)),
        v5::Event::Outgoing(_) => return None,
        v5::Event::Incoming(packet) => packet,
    };
    match packet {
        Packet::ConnAck(_) => Some(Event::In),
        Packet::SubAck(ack) => Some(Event::Subscribed(format!("{:?}", ack.return_codes))),
        Packet::PubAck(ack) => Some(Event::Acknowledged(ack.pkid, format!("{:?}", ack.reason))),
        Packet::PubRec(ack) if ack.reason != PubRecReason::Success => {
            Some(Event::Acknowledged(ack.pkid, format!("{:?}", ack.reason)))
        }
        Packet::PubComp(ack) => Some(Event::Acknowledged(ack.pkid, format!("{:?}", ack.reason))),
        Packet::Publish(message) => Some(Event::Message {
            topic: String::from_utf8_lossy(&message.topic).into_owned(),
            payload: message.payload.to_vec(),
            qos: message.qos as u8,
        }),
        Packet::Disconnect(end) => Some(Event::Told(format!("{:?}", end.reason_code))),
        _ => None,
    }
}

/// False when nobody listens any more.
async fn pass_on(sender: &mpsc::Sender<Event>, event: Option<Event>) -> bool {
    match event {
        Some(event) => sender.send(event).await.is_ok(),
        None => true,
    }
}
