// The codec against the vectors of crates/wire (client-vectors.json, which a test there holds to its decoder and encoder).

import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { connect, Decoder, disconnect, pingreq, ProtocolError, puback, publish, subscribe } from '../../crates/server/web/jam/codec.js'

const encoders = { connect, subscribe, publish, puback, pingreq, disconnect }
const vectors = JSON.parse(readFileSync(new URL('../../crates/wire/tests/client-vectors.json', import.meta.url), 'utf8'))
const LIMIT = 1 << 20
const bytesOf = (hex) => Uint8Array.from(Buffer.from(hex, 'hex'))
const hexOf = (bytes) => Buffer.from(bytes).toString('hex')

/** What the decoder makes of bytes that come in pieces of `cut`: packets, or the error. */
function decode (bytes, cut = Infinity, decoder = new Decoder(LIMIT)) {
  const packets = []
  try {
    for (let at = 0; at < bytes.length; at += cut) packets.push(...decoder.push(bytes.slice(at, Math.min(bytes.length, at + cut))))
  } catch (error) {
    if (!(error instanceof ProtocolError)) throw error
    return error
  }
  return packets
}

/** A packet in the words of the vectors. */
function described ({ type, payload, properties, ...fields }) {
  const { 0x1F: reason = null, from = null, 0x23: topicAlias = null, 0x11: sessionExpiry = null, 0x21: receiveMaximum = null, 0x27: maximumPacketSize = null, 0x13: keepAlive = null } = properties ?? {}
  switch (type) {
    case 'connack': return { type, ...fields, sessionExpiry, receiveMaximum, maximumPacketSize, keepAlive, reason }
    case 'publish': return { type, ...fields, topicAlias, from, payload: hexOf(payload) }
    case 'puback': return { type, ...fields, reason }
    case 'disconnect': return { type, ...fields, reason }
    default: return { type, ...fields }
  }
}

test('every vector is taken or refused, wherever the stream is cut', () => {
  assert.ok(vectors.decode.length > 150)
  const wrong = []
  for (const { what, clause, bytes, packet } of vectors.decode) {
    for (const cut of [Infinity, 1, 3]) {
      const result = decode(bytesOf(bytes), cut)
      const expected = packet && packet.type !== 'other' ? [packet] : 'refused'
      const got = result instanceof ProtocolError ? 'refused' : result.map(described)
      try {
        assert.deepEqual(got, expected)
      } catch (error) {
        wrong.push(`${what} (${clause}), ${bytes.slice(0, 80)}, cut ${cut}: ${error.message}`)
      }
      if (result instanceof ProtocolError) assert.ok(result.code >= 0x80 && result.message && !result.message.includes('\n'))
    }
  }
  assert.deepEqual(wrong, [])
})

test('the encoder writes what the crate writes', () => {
  for (const { call, argument, bytes } of vectors.encode) {
    const given = argument && typeof argument.payload === 'string' ? { ...argument, payload: bytesOf(argument.payload) } : argument
    assert.equal(hexOf(encoders[call](given)), bytes, `${call} ${JSON.stringify(argument).slice(0, 100)}`)
  }
})

test('a stream of all packets comes out the same at every cut', () => {
  const accepted = vectors.decode.filter(({ packet }) => packet && packet.type !== 'other' && packet.type !== 'disconnect').slice(-40)
  const stream = bytesOf(accepted.map(({ bytes }) => bytes).join('').slice(0, 4000))
  const whole = decode(stream).map(described)
  assert.ok(whole.length > 10)
  for (let cut = 1; cut < stream.length; cut++) {
    const decoder = new Decoder(LIMIT)
    assert.deepEqual([...decoder.push(stream.slice(0, cut)), ...decoder.push(stream.slice(cut))].map(described), whole, `cut at ${cut}`)
  }
})

test('random bytes are packets or a ProtocolError, and nothing else', () => {
  let seed = 1
  const random = (below) => {
    seed = Math.imul(seed ^ seed >>> 15, 0x2C1B3C6D) + 0x9E3779B9 | 0
    return (seed >>> 0) % below
  }
  const known = vectors.decode.map(({ bytes }) => bytesOf(bytes)).filter(({ length }) => length < 1000)
  for (let round = 0; round < 20_000; round++) {
    const bytes = known[random(known.length)].slice()
    for (let change = 0; change <= random(3); change++) bytes[random(bytes.length)] = random(256)
    decode(bytes, 1 + random(8))
  }
})

test('a packet over the limit is refused from its header, and one at the limit is not', () => {
  assert.equal(decode(Uint8Array.of(0x30, 0x62), 1, new Decoder(100)).length, 0)
  assert.equal(decode(Uint8Array.of(0x30, 0x63), 1, new Decoder(100)).code, 0x95)
})

test('four megabytes in frames of a kilobyte take the time of their bytes', () => {
  const bytes = publish({ topic: '/1/inbox', id: 1, dup: false, payload: new Uint8Array(4 << 20) })
  const began = process.cpuUsage().user
  assert.equal(decode(bytes, 1024, new Decoder(1 << 24)).length, 1)
  assert.ok(process.cpuUsage().user - began < 3_000_000)
})
