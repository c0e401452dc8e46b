//! Topic aliases that a client sets (MQTT 5.0, section 3.3.2.3.4).
//!
//! Invariant: at most [`MAX_ALIASES`] topics of at most `MAX_TOPIC_BYTES` and a little are remembered, and none of them
//! holds a receive buffer. Checked by the tests below and by `tests/publishing.rs`.

use bytestring::ByteString;
use jam_wire::ReasonCode;
use jam_wire::packet::Publish;

use crate::policy::MAX_TOPIC_BYTES;

/// Topic aliases that a 5.0 client may set.
pub const MAX_ALIASES: u16 = 16;

/// Topics by alias less one.
#[derive(Default)]
pub(super) struct TopicAliases(Vec<Option<ByteString>>);

impl TopicAliases {
    /// Puts the topic in place of its alias. An error is the reason to end the connection.
    pub(super) fn resolve(&mut self, publish: &mut Publish) -> Result<(), ReasonCode> {
        let Some(alias) = publish.properties.as_ref().and_then(|it| it.topic_alias) else {
            return Ok(());
        };
        if alias.get() > MAX_ALIASES {
            return Err(ReasonCode::TopicAliasInvalid);
        }
        let index = usize::from(alias.get() - 1);
        if self.0.len() <= index {
            self.0.resize(index + 1, None);
        }
        if publish.topic.is_empty() {
            publish.topic = self.0[index].clone().ok_or(ReasonCode::ProtocolError)?;
        } else {
            // A copy: a slice would hold the whole receive buffer for as long as the connection lives. Of a topic
            // that is too long, as much as makes it so.
            let end = publish.topic.ceil_char_boundary(MAX_TOPIC_BYTES + 1);
            self.0[index] = Some(publish.topic[..end].into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;

    use bytes::Bytes;
    use jam_wire::packet::{PublishProperties, QoS};

    use super::*;

    fn publish(topic: &str, alias: u16) -> Publish {
        let properties = PublishProperties {
            topic_alias: NonZeroU16::new(alias),
            ..PublishProperties::default()
        };
        Publish {
            dup: false,
            qos: QoS::AtMostOnce,
            retain: false,
            topic: topic.into(),
            packet_id: None,
            properties: Some(Box::new(properties)),
            payload: Bytes::new(),
        }
    }

    #[test]
    fn an_alias_stands_for_the_topic_that_was_last_given_with_it() {
        let mut aliases = TopicAliases::default();
        for topic in ["/1/inbox", "/2/inbox"] {
            aliases.resolve(&mut publish(topic, MAX_ALIASES)).unwrap();
            let mut short = publish("", MAX_ALIASES);
            aliases.resolve(&mut short).unwrap();
            assert_eq!(short.topic, topic);
        }
    }

    #[test]
    fn an_alias_that_is_too_high_or_was_not_set_is_an_error() {
        let mut aliases = TopicAliases::default();
        let too_high = aliases.resolve(&mut publish("/1/inbox", MAX_ALIASES + 1));
        assert_eq!(too_high, Err(ReasonCode::TopicAliasInvalid));
        let unknown = aliases.resolve(&mut publish("", 1));
        assert_eq!(unknown, Err(ReasonCode::ProtocolError));
    }
}
