// A WebSocket whose other end is the test: it reads what the client has sent as packets, and sends what a server would.

const text = new TextDecoder()
const utf8 = new TextEncoder()

const u16 = (value) => [value >> 8, value & 255]
const u32 = (value) => [...u16(value >>> 16), ...u16(value & 0xFFFF)]
const string = (value) => {
  const bytes = utf8.encode(value)
  return [...u16(bytes.length), ...bytes]
}
const varint = (value) => value < 128 ? [value] : [value & 127 | 128, ...varint(value >> 7)]
const properties = (bytes) => [...varint(bytes.length), ...bytes]
export const packet = (first, body) => Uint8Array.from([first, ...varint(body.length), ...body])

export class Socket {
  constructor (url, protocol) {
    Object.assign(this, { url, protocol, readyState: 0, sent: [] })
  }

  send (bytes) {
    if (this.readyState !== 1) throw new DOMException('not open', 'InvalidStateError')
    const packets = read(Uint8Array.from(bytes))
    this.sent.push(...packets)
    if (this.answersPings && packets.some(({ type }) => type === 'pingreq')) setImmediate(() => this.pingresp())
  }

  close () { this.readyState = 3 }

  // The other end

  /** Everything that the client has sent and the test has not looked at, of one type or all. */
  take (type) {
    const found = this.sent.filter((sent) => !type || sent.type === type)
    this.sent = this.sent.filter((sent) => !found.includes(sent))
    return found
  }

  open () {
    this.readyState = 1
    this.onopen?.()
  }

  /** As binary frames, cut as `cut` says: into so many bytes each. */
  receive (bytes, cut = bytes.length) {
    for (let at = 0; at < bytes.length; at += cut) this.onmessage?.({ data: bytes.slice(at, at + cut).buffer })
  }

  drop () {
    this.readyState = 3
    this.onclose?.({ code: 1006 })
  }

  kill () { this.onopen = this.onmessage = this.onclose = this.onerror = null }

  connack ({ code = 0, present = false, reason, receiveMaximum, maximumPacketSize, keepAlive } = {}) {
    this.receive(packet(0x20, [present ? 1 : 0, code, ...properties([
      ...(reason ? [0x1F, ...string(reason)] : []),
      ...(receiveMaximum ? [0x21, ...u16(receiveMaximum)] : []),
      ...(maximumPacketSize ? [0x27, ...u32(maximumPacketSize)] : []),
      ...(keepAlive !== undefined ? [0x13, ...u16(keepAlive)] : [])
    ])]))
  }

  /** Accepts the CONNECT. */
  accept (options) {
    this.open()
    this.connack(options)
  }

  publish (topic, payload, { id = 0, dup = false, from } = {}, cut) {
    const body = typeof payload === 'string' ? utf8.encode(payload) : payload instanceof Uint8Array ? payload : utf8.encode(JSON.stringify(payload))
    this.receive(packet(0x30 | (dup ? 8 : 0) | (id ? 2 : 0), [
      ...string(topic), ...(id ? u16(id) : []), ...properties(from === undefined ? [] : [0x26, ...string('from'), ...string(from)]), ...body
    ]), cut)
  }

  puback (id, code = 0, reason) { this.receive(packet(0x40, [...u16(id), ...(code || reason ? [code, ...properties(reason ? [0x1F, ...string(reason)] : [])] : [])])) }
  pingresp () { this.receive(packet(0xD0, [])) }
  disconnect (code) { this.receive(packet(0xE0, [code])) }

  /** An error on the device channel. */
  refuse (client, error) { this.publish(`/${client.split(':')[0]}/devices/${client}`, { type: 'error', handler: 'authorizePublish', ...error }) }
}

/** What a client sends, strictly enough to notice nonsense. */
function read (bytes) {
  const found = []
  for (let at = 0; at < bytes.length;) {
    const first = bytes[at++]
    let [length, scale] = [0, 1]
    for (;; scale *= 128) {
      const byte = bytes[at++]
      length += (byte & 127) * scale
      if (byte < 128) break
    }
    found.push(body(first, bytes.subarray(at, at + length)))
    at += length
  }
  return found
}

function body (first, bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
  let at = 0
  const number = (width) => {
    at += width
    return width === 1 ? view.getUint8(at - 1) : width === 2 ? view.getUint16(at - 2) : view.getUint32(at - 4)
  }
  const take = () => {
    const length = number(2)
    at += length
    return text.decode(bytes.subarray(at - length, at))
  }
  switch (first >> 4) {
    case 1: {
      at = 7
      const flags = number(1)
      const keepAlive = number(2)
      const end = number(1) + at
      const found = {}
      while (at < end) found[number(1)] = number(bytes[at - 1] === 0x21 ? 2 : 4)
      return { type: 'connect', flags, keepAlive, properties: found, clientId: take(), user: take(), token: take() }
    }
    case 3: {
      const topic = take()
      const id = first & 6 ? number(2) : 0
      at += 1 + bytes[at]
      return { type: 'publish', topic, id, dup: (first & 8) > 0, qos: first >> 1 & 3, payload: JSON.parse(text.decode(bytes.subarray(at))) }
    }
    case 4: return { type: 'puback', id: number(2), code: at < bytes.length ? number(1) : 0 }
    case 8: {
      const id = number(2)
      at += 1
      const filters = []
      while (at < bytes.length) filters.push([take(), number(1)])
      return { type: 'subscribe', id, filters }
    }
    case 12: return { type: 'pingreq' }
    case 14: return { type: 'disconnect', code: bytes.length ? number(1) : 0, ends: bytes.length > 1 }
  }
  throw new Error(`a client does not send ${first}`)
}
