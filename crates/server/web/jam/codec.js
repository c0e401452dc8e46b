// MQTT 5 as a client of QoS 0 and 1 speaks it: packets to bytes, bytes to packets.
//
// Knows nothing of sockets, topics' meaning or time. Invariants: what the standard forbids a server is refused with the reason
// code it asks for, wherever the stream is cut; a packet over the limit is refused from its header. Held against the vectors of
// crates/wire by tests/jamjs/codec.test.mjs.

/**
 * @typedef {{ type: 'connack', sessionPresent: boolean, code: number, properties: Properties }} ConnAck
 * @typedef {{ type: 'publish', topic: string, id: number | null, dup: boolean, qos: number, retain: boolean, properties: Properties, payload: Uint8Array }} Publish
 * @typedef {{ type: 'puback', id: number, code: number, properties: Properties }} PubAck
 * @typedef {{ type: 'suback', id: number, codes: number[], properties: Properties }} SubAck
 * @typedef {{ type: 'pingresp' }} PingResp
 * @typedef {{ type: 'disconnect', code: number, properties: Properties }} Disconnect
 * @typedef {ConnAck | Publish | PubAck | SubAck | PingResp | Disconnect} Packet
 */

/**
 * A packet's properties by their identifiers, and the User Property `from`; other User Properties are checked and left.
 *
 * @typedef {{ [identifier: number]: any, from?: string }} Properties
 */

/** In seconds. */
export const KEEP_ALIVE = 0x13
/** A string. */
export const REASON = 0x1F
export const RECEIVE = 0x21
export const TOPIC_ALIAS = 0x23
/** In bytes, fixed header included. */
export const PACKET_SIZE = 0x27

/** Ends the connection, with this reason code. */
export class ProtocolError extends Error {
  /** @param {number} code */
  constructor (code) {
    super(`reason code ${code}`)
    this.code = code
  }
}

const MALFORMED = 0x81
const PROTOCOL = 0x82
const TOO_LARGE = 0x95

/** @param {number} code @returns {never} */
export const refuse = (code) => { throw new ProtocolError(code) }

const utf8 = new TextEncoder()
const strict = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

// Encoding

/** @param {(number | Uint8Array)[]} parts  Numbers are bytes. */
function join (parts) {
  const whole = new Uint8Array(parts.reduce((/** @type {number} */ sum, part) => sum + (typeof part === 'number' ? 1 : part.length), 0))
  let at = 0
  for (const part of parts) {
    if (typeof part === 'number') whole[at++] = part
    else {
      whole.set(part, at)
      at += part.length
    }
  }
  return whole
}

/** @param {number} value */
const u16 = (value) => [value >> 8 & 255, value & 255]
/** @param {number} value */
const u32 = (value) => [...u16(value >>> 16), ...u16(value)]

/** @param {string} text */
const string = (text) => {
  const bytes = utf8.encode(text)
  return [...u16(bytes.length), bytes]
}

/** @param {number} value */
function varint (value) {
  const bytes = []
  for (; value > 127; value >>= 7) bytes.push(value & 127 | 128)
  return [...bytes, value]
}

/** @param {number} first @param {(number | Uint8Array)[]} body */
const packet = (first, body) => {
  const bytes = join(body)
  return join([first, ...varint(bytes.length), bytes])
}

/** @param {{ clientId: string, user: string, token: string, keepAlive: number, sessionExpiry: number, receiveMaximum: number, maximumPacketSize: number }} options */
export function connect ({ clientId, user, token, keepAlive, sessionExpiry, receiveMaximum, maximumPacketSize }) {
  const properties = [0x11, ...u32(sessionExpiry), RECEIVE, ...u16(receiveMaximum), PACKET_SIZE, ...u32(maximumPacketSize)]
  return packet(0x10, [...string('MQTT'), 5, 0xC0, ...u16(keepAlive), properties.length, ...properties, ...string(clientId), ...string(user), ...string(token)])
}

/** @param {{ id: number, filters: [string, number][] }} options  Each filter with its QoS. */
export const subscribe = ({ id, filters }) => packet(0x82, [...u16(id), 0, ...filters.flatMap(([filter, qos]) => [...string(filter), qos])])

/** At QoS 1. @param {{ topic: string, id: number, dup: boolean, payload: Uint8Array }} options */
export const publish = ({ topic, id, dup, payload }) => packet(dup ? 0x3A : 0x32, [...string(topic), ...u16(id), 0, payload])

/** @param {number} id */
export const puback = (id) => packet(0x40, u16(id))

export const pingreq = () => packet(0xC0, [])

/** @param {{ code: number, sessionExpiry?: number }} options */
export const disconnect = ({ code, sessionExpiry }) =>
  packet(0xE0, sessionExpiry === undefined ? (code ? [code, 0] : []) : [code, 5, 0x11, ...u32(sessionExpiry)])

// Decoding

/** A packet's body; whatever is read past its end is malformed. */
class Body {
  /** @param {Uint8Array} bytes */
  constructor (bytes) {
    this.bytes = bytes
    this.at = 0
  }

  get left () { return this.bytes.length - this.at }

  /** @param {number} count */
  take (count) {
    if (count > this.left) refuse(MALFORMED)
    this.at += count
    return this.bytes.subarray(this.at - count, this.at)
  }

  /** @param {number} width  Bytes, 4 at most. */
  number (width) { return this.take(width).reduce((value, byte) => value * 256 + byte, 0) }

  varint () {
    const length = readVarint(this.bytes, this.at)
    if (!length) return refuse(MALFORMED)
    this.at = length.end
    return length.value
  }

  binary () { return this.take(this.number(2)) }

  string () {
    const bytes = this.binary()
    if (bytes.includes(0)) refuse(MALFORMED)
    try {
      return strict.decode(bytes)
    } catch {
      return refuse(MALFORMED)
    }
  }

  /** A packet id. */
  id () { return this.number(2) || refuse(PROTOCOL) }

  /** @param {number[]} codes */
  code (codes) {
    const code = this.number(1)
    return codes.includes(code) ? code : refuse(MALFORMED)
  }

  /** @param {number[]} allowed  The identifiers that this packet may have. */
  properties (allowed) {
    /** @type {Properties} */
    const found = {}
    const inner = new Body(this.take(this.varint()))
    const seen = new Set()
    while (inner.left) {
      const identifier = inner.number(1)
      if (!allowed.includes(identifier)) refuse(MALFORMED)
      if (seen.has(identifier) && identifier !== USER && identifier !== SUBSCRIPTION) refuse(PROTOCOL)
      seen.add(identifier)
      inner.property(identifier, found)
    }
    if (seen.has(0x16) && !seen.has(0x15)) refuse(PROTOCOL)
    return found
  }

  /** @param {number} identifier @param {Properties} found */
  property (identifier, found) {
    const kind = KINDS[identifier]
    const value = Number(kind) ? this.number(Number(kind)) : kind === 'v' ? this.varint() : kind === 'd' ? this.binary() : this.string()
    if ((kind === '1' && Number(value) > 1) || (NOT_ZERO.includes(identifier) && !value) || (identifier === RESPONSE_TOPIC && /^$|[+#]/.test(String(value)))) refuse(PROTOCOL)
    if (identifier === USER) {
      const text = this.string()
      if (value === 'from') found.from = text
    } else found[identifier] = value
  }

  end () { if (this.left) refuse(MALFORMED) }
}

const USER = 0x26
const SUBSCRIPTION = 0x0B
const RESPONSE_TOPIC = 0x08
const NOT_ZERO = [SUBSCRIPTION, RECEIVE, TOPIC_ALIAS, PACKET_SIZE]

/** By identifier, from 0 on. 1, 2, 4: bytes of a number, of which that of one is 0 or 1; v: a number of variable length; s: a string, and one more in a User Property; d: data. */
const KINDS = ' 14s    sd v     4s2 sd   s s  s 22211s4111'

const OF_CONNACK = [0x11, 0x12, 0x13, 0x15, 0x16, 0x1A, 0x1C, 0x1F, 0x21, 0x22, 0x24, 0x25, USER, 0x27, 0x28, 0x29, 0x2A]
const OF_PUBLISH = [0x01, 0x02, 0x03, RESPONSE_TOPIC, 0x09, SUBSCRIPTION, 0x23, USER]
const OF_ACK = [0x1F, USER]
const OF_DISCONNECT = [0x1C, 0x1F, USER]

const CODES_OF_CONNACK = [0, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x8C, 0x90, 0x95, 0x97, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9F]
const CODES_OF_PUBACK = [0, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99]
const CODES_OF_SUBACK = [0, 1, 2, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2]
const CODES_OF_DISCONNECT = [0, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8B, 0x8D, 0x8E, 0x8F, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9E, 0x9F, 0xA0, 0xA1, 0xA2]

/** @param {number} first @param {Body} body @returns {Packet} */
function decode (first, body) {
  switch (first) {
    case 0x20: {
      const flags = body.number(1)
      if (flags > 1) refuse(MALFORMED)
      const code = body.code(CODES_OF_CONNACK)
      if (flags && code) refuse(PROTOCOL)
      return { type: 'connack', sessionPresent: flags === 1, code, properties: body.properties(OF_CONNACK) }
    }
    case 0x40:
      return { type: 'puback', id: body.id(), code: body.left ? body.code(CODES_OF_PUBACK) : 0, properties: body.left ? body.properties(OF_ACK) : {} }
    case 0x90: {
      const [id, properties, codes] = [body.id(), body.properties(OF_ACK), /** @type {number[]} */ ([])]
      do codes.push(body.code(CODES_OF_SUBACK))
      while (body.left)
      return { type: 'suback', id, codes, properties }
    }
    case 0xD0:
      return { type: 'pingresp' }
    case 0xE0:
      return { type: 'disconnect', code: body.left ? body.code(CODES_OF_DISCONNECT) : 0, properties: body.left ? body.properties(OF_DISCONNECT) : {} }
  }
  return first >> 4 === 3 ? decodePublish(first, body) : refuse(first & 15 ? MALFORMED : PROTOCOL)
}

/** @param {number} first @param {Body} body @returns {Publish} */
function decodePublish (first, body) {
  const [dup, qos, retain] = [(first & 8) > 0, first >> 1 & 3, (first & 1) > 0]
  if (qos === 3 || (dup && !qos)) refuse(MALFORMED)
  if (qos === 2) refuse(PROTOCOL)
  const topic = body.string()
  const id = qos ? body.id() : null
  const properties = body.properties(OF_PUBLISH)
  if (!topic && !properties[TOPIC_ALIAS]) refuse(PROTOCOL)
  return { type: 'publish', topic, id, dup, qos, retain, properties, payload: body.take(body.left) }
}

/**
 * @param {Uint8Array} bytes
 * @param {number} at
 * @returns {{ value: number, end: number } | null}  null if more bytes are needed.
 */
function readVarint (bytes, at, end = bytes.length) {
  for (let value = 0, scale = 1, width = 1; at < end; width++, scale *= 128) {
    const byte = bytes[at++]
    value += (byte & 127) * scale
    if (byte < 128) return byte || width === 1 ? { value, end: at } : refuse(MALFORMED)
    if (width === 4) refuse(MALFORMED)
  }
  return null
}

/** What is kept of the buffer when nothing is in it. */
const IDLE_BYTES = 65_536

/** A stream of bytes, cut anywhere, to packets. After an error it is of no more use. */
export class Decoder {
  #buffer = new Uint8Array(1024)
  #start = 0
  #end = 0

  /** @param {number} limit  Bytes of a packet at most, its header included. */
  constructor (limit) { this.limit = limit }

  /** @param {Uint8Array} bytes @returns {Generator<Packet>} */
  * push (bytes) {
    this.#append(bytes)
    for (;;) {
      const length = readVarint(this.#buffer, this.#start + 1, this.#end)
      if (!length) break
      const end = length.end + length.value
      if (end - this.#start > this.limit) refuse(TOO_LARGE)
      if (end > this.#end) break
      const first = this.#buffer[this.#start]
      const body = new Body(this.#buffer.slice(length.end, end))
      this.#start = end
      const packet = decode(first, body)
      body.end()
      yield packet
    }
    if (this.#start === this.#end) {
      this.#start = this.#end = 0
      if (this.#buffer.length > IDLE_BYTES) this.#buffer = new Uint8Array(1024)
    }
  }

  /** @param {Uint8Array} bytes */
  #append (bytes) {
    const kept = this.#end - this.#start
    if (this.#end + bytes.length > this.#buffer.length) {
      const buffer = new Uint8Array(Math.max(2 * kept, kept + bytes.length, 1024))
      buffer.set(this.#buffer.subarray(this.#start, this.#end))
      this.#buffer = buffer
      this.#start = 0
      this.#end = kept
    }
    this.#buffer.set(bytes, this.#end)
    this.#end += bytes.length
  }
}
