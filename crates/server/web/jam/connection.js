// One connection: a WebSocket, the CONNECT on it, its keep alive, and its end. It is never opened again; `session` makes the next.
//
// Invariants: it ends once, whoever ends it, and says so once; nothing is heard of it afterwards. Every wait has a bound.

import { connect, Decoder, KEEP_ALIVE, REASON, TOPIC_ALIAS, disconnect, pingreq, puback, refuse } from './codec.js'

/** A CONNACK may take the server that long (PROTOCOL.md, When to reconnect), and the TCP and TLS handshakes come before it. */
export const CONNACK_MS = 40_000
export const KEEP_ALIVE_SECS = 30
export const PINGRESP_MS = 10_000
/** What the server may have on its way to this client. */
export const RECEIVE_MAXIMUM = 16
export const MAX_PACKET = 16 * 1024 * 1024
const SESSION_EXPIRY_SECS = 30 * 24 * 3600

/**
 * How a connection has ended.
 *
 * @typedef {object} End
 * @property {'lost' | 'refused' | 'disconnected' | 'malformed'} how  Broken; by a CONNACK; by the server's DISCONNECT; what came was no MQTT.
 * @property {number | null} code  The reason code that the server gave, or was given.
 * @property {string} message  One line.
 */

/**
 * @typedef {object} Listener
 * @property {(connack: import('./codec.js').ConnAck) => void} opened
 * @property {(packet: import('./codec.js').Publish | import('./codec.js').PubAck | import('./codec.js').SubAck) => void} received
 * @property {(end: End) => void} ended
 */

export class Connection {
  #world
  #listener
  #socket
  #decoder = new Decoder(MAX_PACKET)
  #open = false
  #over = false
  #keepAliveMs = KEEP_ALIVE_SECS * 1000
  /** @type {any} */ #timer
  /** @type {any} */ #pinged

  /**
   * @param {{ url: string, clientId: string, user: string, token: string }} options
   * @param {import('./world.js').World} world
   * @param {Listener} listener
   */
  constructor ({ url, clientId, user, token }, world, listener) {
    this.#world = world
    this.#listener = listener
    const socket = new world.WebSocket(url, 'mqtt')
    this.#socket = socket
    this.#timer = world.setTimeout(() => this.#lost('the server does not answer'), CONNACK_MS)
    socket.binaryType = 'arraybuffer'
    socket.onopen = () => this.#over || socket.send(connect({
      clientId, user, token, keepAlive: KEEP_ALIVE_SECS, sessionExpiry: SESSION_EXPIRY_SECS, receiveMaximum: RECEIVE_MAXIMUM, maximumPacketSize: MAX_PACKET
    }))
    socket.onmessage = ({ data }) => this.#read(data)
    socket.onclose = socket.onerror = () => this.#lost('no connection')
  }

  /** Whether packets may be sent. */
  get open () { return this.#open && !this.#over }

  /** @param {Uint8Array} bytes */
  send (bytes) {
    if (!this.open) return
    this.#socket.send(/** @type {Uint8Array<ArrayBuffer>} */ (bytes))
    this.#later()
  }

  /** @param {number | null} id  null acknowledges nothing. */
  acknowledge (id) { if (id !== null) this.send(puback(id)) }

  /** Finds out whether the connection still stands. */
  ping () {
    if (!this.open || this.#pinged) return
    this.send(pingreq())
    this.#pinged = this.#world.setTimeout(() => this.#lost('the server does not answer'), PINGRESP_MS)
  }

  /** Ends it by a DISCONNECT. Nothing is heard of it any more. @param {{ code: number, sessionExpiry?: number }} how */
  end (how) {
    if (this.open) this.#socket.send(disconnect(how))
    this.#finish()
  }

  /** @param {unknown} data */
  #read (data) {
    if (this.#over) return
    this.#alive()
    try {
      if (!(data instanceof ArrayBuffer)) return refuse(0x81)
      for (const packet of this.#decoder.push(new Uint8Array(data))) {
        this.#handle(packet)
        if (this.#over) return
      }
    } catch (error) {
      const { code = 0x83, message } = /** @type {import('./codec.js').ProtocolError} */ (error)
      if (this.open) this.#socket.send(disconnect({ code }))
      this.#ended('malformed', code, `this is no MQTT: ${message}`)
    }
  }

  /** @param {import('./codec.js').Packet} packet */
  #handle (packet) {
    if (packet.type === 'disconnect') return this.#ended('disconnected', packet.code, packet.properties[REASON] ?? 'closed by the server')
    if ((packet.type === 'connack') === this.#open) refuse(0x82)
    if (packet.type === 'connack') {
      if (packet.code) return this.#ended('refused', packet.code, packet.properties[REASON] ?? 'refused by the server')
      this.#open = true
      this.#keepAliveMs = (packet.properties[KEEP_ALIVE] ?? KEEP_ALIVE_SECS) * 1000
      this.#later()
      this.#listener.opened(packet)
    } else if (packet.type === 'publish' && packet.properties[TOPIC_ALIAS]) refuse(0x94)
    else if (packet.type !== 'pingresp') this.#listener.received(packet)
  }

  /** Something came. The next PINGREQ is counted from here: browsers slow down timers that only other timers have set, in hidden pages. */
  #alive () {
    if (!this.#pinged) return
    this.#world.clearTimeout(this.#pinged)
    this.#pinged = undefined
    this.#later()
  }

  /** A PINGREQ is due that long after the last packet. 0 is never. */
  #later () {
    this.#world.clearTimeout(this.#timer)
    if (this.#keepAliveMs) this.#timer = this.#world.setTimeout(() => this.ping(), this.#keepAliveMs)
  }

  /** @param {string} message */
  #lost (message) { this.#ended('lost', null, message) }

  /** @param {End['how']} how @param {number | null} code @param {string} message */
  #ended (how, code, message) {
    if (this.#over) return
    this.#finish()
    this.#listener.ended({ how, code, message })
  }

  #finish () {
    this.#over = true
    this.#world.clearTimeout(this.#timer)
    this.#world.clearTimeout(this.#pinged)
    this.#socket.close()
  }
}
