//! Reason codes of MQTT 5.0 (section 2.4) and CONNACK return codes of MQTT 3.1.1 (section 3.2.2.3).

use std::fmt;

macro_rules! codes {
    ($(#[$meta:meta])* $name:ident { $(#[doc = $says:literal] $variant:ident = $value:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum $name { $(#[doc = $says] $variant = $value,)+ }

        impl $name {
            /// The code with this value, if there is one.
            #[must_use]
            pub fn from_u8(value: u8) -> Option<Self> {
                match value { $($value => Some(Self::$variant),)+ _ => None }
            }

            /// Every code, in ascending order.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];
        }

        /// The standard's name of it.
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let says = match self { $(Self::$variant => $says,)+ };
                let name = says.split([';', ',', '.']).next().unwrap_or(says);
                f.write_str(name.trim())
            }
        }

        impl From<$name> for u8 {
            fn from(code: $name) -> u8 { code as u8 }
        }
    };
}

codes! {
    /// A reason code of MQTT 5.0. Values below 0x80 say success.
    ///
    /// 0x00 is also "Normal disconnection" and "Granted QoS 0", as the standard has it.
    ReasonCode {
        /// Success, Normal disconnection, Granted QoS 0.
        Success = 0x00,
        /// Granted QoS 1.
        GrantedQoS1 = 0x01,
        /// Granted QoS 2.
        GrantedQoS2 = 0x02,
        /// Disconnect with Will Message.
        DisconnectWithWill = 0x04,
        /// No matching subscribers.
        NoMatchingSubscribers = 0x10,
        /// No subscription existed.
        NoSubscriptionExisted = 0x11,
        /// Continue authentication.
        ContinueAuthentication = 0x18,
        /// Re-authenticate.
        ReAuthenticate = 0x19,
        /// Unspecified error; the failure of a SUBACK in 3.1.1.
        UnspecifiedError = 0x80,
        /// Malformed Packet.
        MalformedPacket = 0x81,
        /// Protocol Error.
        ProtocolError = 0x82,
        /// Implementation specific error.
        ImplementationSpecificError = 0x83,
        /// Unsupported Protocol Version.
        UnsupportedProtocolVersion = 0x84,
        /// Client Identifier not valid.
        ClientIdentifierNotValid = 0x85,
        /// Bad User Name or Password.
        BadUserNameOrPassword = 0x86,
        /// Not authorized.
        NotAuthorized = 0x87,
        /// Server unavailable.
        ServerUnavailable = 0x88,
        /// Server busy.
        ServerBusy = 0x89,
        /// Banned.
        Banned = 0x8A,
        /// Server shutting down.
        ServerShuttingDown = 0x8B,
        /// Bad authentication method.
        BadAuthenticationMethod = 0x8C,
        /// Keep Alive timeout.
        KeepAliveTimeout = 0x8D,
        /// Session taken over.
        SessionTakenOver = 0x8E,
        /// Topic Filter invalid.
        TopicFilterInvalid = 0x8F,
        /// Topic Name invalid.
        TopicNameInvalid = 0x90,
        /// Packet Identifier in use.
        PacketIdentifierInUse = 0x91,
        /// Packet Identifier not found.
        PacketIdentifierNotFound = 0x92,
        /// Receive Maximum exceeded.
        ReceiveMaximumExceeded = 0x93,
        /// Topic Alias invalid.
        TopicAliasInvalid = 0x94,
        /// Packet too large.
        PacketTooLarge = 0x95,
        /// Message rate too high.
        MessageRateTooHigh = 0x96,
        /// Quota exceeded.
        QuotaExceeded = 0x97,
        /// Administrative action.
        AdministrativeAction = 0x98,
        /// Payload format invalid.
        PayloadFormatInvalid = 0x99,
        /// Retain not supported.
        RetainNotSupported = 0x9A,
        /// QoS not supported.
        QoSNotSupported = 0x9B,
        /// Use another server.
        UseAnotherServer = 0x9C,
        /// Server moved.
        ServerMoved = 0x9D,
        /// Shared Subscriptions not supported.
        SharedSubscriptionsNotSupported = 0x9E,
        /// Connection rate exceeded.
        ConnectionRateExceeded = 0x9F,
        /// Maximum connect time.
        MaximumConnectTime = 0xA0,
        /// Subscription Identifiers not supported.
        SubscriptionIdentifiersNotSupported = 0xA1,
        /// Wildcard Subscriptions not supported.
        WildcardSubscriptionsNotSupported = 0xA2,
    }
}

codes! {
    /// A CONNACK return code of MQTT 3.1 and 3.1.1.
    ConnectReturnCode {
        /// Connection accepted.
        Accepted = 0,
        /// Unacceptable protocol version.
        UnacceptableProtocolVersion = 1,
        /// Identifier rejected.
        IdentifierRejected = 2,
        /// Server unavailable.
        ServerUnavailable = 3,
        /// Bad user name or password.
        BadUserNameOrPassword = 4,
        /// Not authorized.
        NotAuthorized = 5,
    }
}

impl ReasonCode {
    /// Whether this says failure: 0x80 and above.
    #[must_use]
    pub fn is_error(self) -> bool {
        u8::from(self) >= 0x80
    }
}

/// The packets that carry a reason code, grouped by the set of codes the standard allows in them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Carrier {
    /// CONNACK, section 3.2.2.2.
    ConnAck,
    /// PUBACK and PUBREC, sections 3.4.2.1 and 3.5.2.1.
    PubAck,
    /// PUBREL and PUBCOMP, sections 3.6.2.1 and 3.7.2.1.
    PubRel,
    /// SUBACK, section 3.9.3.
    SubAck,
    /// UNSUBACK, section 3.11.3.
    UnsubAck,
    /// DISCONNECT, section 3.14.2.1.
    Disconnect,
    /// AUTH, section 3.15.2.1.
    Auth,
}

impl ReasonCode {
    /// Whether MQTT 5.0 allows this code in that packet (the table in section 2.4).
    #[must_use]
    pub fn is_allowed_in(self, carrier: Carrier) -> bool {
        use ReasonCode as R;
        match carrier {
            Carrier::ConnAck => self.is_allowed_in_connack(),
            Carrier::PubAck => matches!(
                self,
                R::Success
                    | R::NoMatchingSubscribers
                    | R::UnspecifiedError
                    | R::ImplementationSpecificError
                    | R::NotAuthorized
                    | R::TopicNameInvalid
                    | R::PacketIdentifierInUse
                    | R::QuotaExceeded
                    | R::PayloadFormatInvalid
            ),
            Carrier::PubRel => matches!(self, R::Success | R::PacketIdentifierNotFound),
            Carrier::SubAck => matches!(
                self,
                R::Success
                    | R::GrantedQoS1
                    | R::GrantedQoS2
                    | R::UnspecifiedError
                    | R::ImplementationSpecificError
                    | R::NotAuthorized
                    | R::TopicFilterInvalid
                    | R::PacketIdentifierInUse
                    | R::QuotaExceeded
                    | R::SharedSubscriptionsNotSupported
                    | R::SubscriptionIdentifiersNotSupported
                    | R::WildcardSubscriptionsNotSupported
            ),
            Carrier::UnsubAck => matches!(
                self,
                R::Success
                    | R::NoSubscriptionExisted
                    | R::UnspecifiedError
                    | R::ImplementationSpecificError
                    | R::NotAuthorized
                    | R::TopicFilterInvalid
                    | R::PacketIdentifierInUse
            ),
            Carrier::Disconnect => self.is_allowed_in_disconnect(),
            Carrier::Auth => {
                matches!(
                    self,
                    R::Success | R::ContinueAuthentication | R::ReAuthenticate
                )
            }
        }
    }

    fn is_allowed_in_connack(self) -> bool {
        use ReasonCode as R;
        match self {
            R::Success
            | R::PacketTooLarge
            | R::QuotaExceeded
            | R::PayloadFormatInvalid
            | R::RetainNotSupported
            | R::QoSNotSupported
            | R::UseAnotherServer
            | R::ServerMoved
            | R::ConnectionRateExceeded => true,
            R::ServerShuttingDown
            | R::KeepAliveTimeout
            | R::SessionTakenOver
            | R::TopicFilterInvalid => false,
            _ => (0x80..=0x90).contains(&u8::from(self)),
        }
    }

    fn is_allowed_in_disconnect(self) -> bool {
        use ReasonCode as R;
        match self {
            R::Success | R::DisconnectWithWill => true,
            R::UnsupportedProtocolVersion
            | R::ClientIdentifierNotValid
            | R::BadUserNameOrPassword
            | R::ServerUnavailable
            | R::Banned
            | R::BadAuthenticationMethod
            | R::PacketIdentifierInUse
            | R::PacketIdentifierNotFound => false,
            _ => self.is_error(),
        }
    }
}
