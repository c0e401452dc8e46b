// The friendship story as mqtt.js tells it: 4.3.7, which deployed servers are tested with, and the
// current one; each in 3.1.1 and 5.0, over TCP, TLS and WebSocket.

import assert from 'node:assert/strict'
import { once } from 'node:events'
import { after, before, describe, test } from 'node:test'
import mqtt from 'mqtt'
import mqtt4 from 'mqtt4'
import { Server } from './server.mjs'

const patienceMs = 30_000

const error = (category, message, messageId = null, handler = 'authorizePublish') =>
  JSON.stringify({ type: 'error', handler, category, message, messageId })

const logout = '{"type":"error","handler":"authenticate","category":"logout","message":"a new device has connected","messageId":null}'

// One client. What arrives is kept in order, and awaited one by one.
class Phone {
  constructor (library, server, transport, version, user, options = {}) {
    const { device = 'phone', ...others } = options
    const scheme = { tcp: 'mqtt', tls: 'mqtts', ws: 'ws', wss: 'wss' }[transport]
    const path = scheme.startsWith('ws') ? '/mqtt' : ''
    this.user = user
    this.version = version
    this.client = library.connect(`${scheme}://localhost:${server.ports[transport]}${path}`, {
      protocolVersion: version,
      clientId: user.clientId(device),
      username: user.id,
      password: user.token,
      reconnectPeriod: 0,
      ca: server.ca,
      ...others
    })
    this.client.setMaxListeners(0) // one for each publish on its way
    this.channel = `/${user.id}/devices/${this.client.options.clientId}`
    this.events = []
    this.waiting = []
    this.sent = 0
    const push = (event) => this.waiting.length ? this.waiting.shift()(event) : this.events.push(event)
    this.client.on('connect', (packet) => push({ kind: 'in', packet }))
    this.client.on('message', (topic, payload, packet) => push({ kind: 'message', topic, payload, packet }))
    this.client.on('disconnect', (packet) => push({ kind: 'disconnect', packet }))
    this.client.on('close', () => push({ kind: 'closed' }))
    this.client.on('error', (error) => push({ kind: 'error', error }))
  }

  async expect (kind) {
    const event = this.events.shift() ?? await new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`no ${kind} within ${patienceMs} ms`)), patienceMs)
      this.waiting.push((event) => { clearTimeout(timer); resolve(event) })
    })
    assert.equal(event.kind, kind, JSON.stringify(event))
    return event
  }

  subscribe (topic, qos = 1) {
    return new Promise((resolve, reject) =>
      this.client.subscribe(topic, { qos }, (error, granted) => error ? reject(error) : resolve(granted)))
  }

  // Resolves with the packet id; in 5.0 a refusal is an error with its code.
  publish (topic, payload, qos = 1, properties) {
    let messageId = null
    const options = this.version === 5 && properties ? { qos, properties } : { qos }
    const noticed = (packet) => { if (packet.cmd === 'publish' && packet.topic === topic && qos > 0) messageId = packet.messageId }
    this.client.on('packetsend', noticed)
    return new Promise((resolve) => this.client.publish(topic, payload, options, (error) => {
      this.client.off('packetsend', noticed)
      resolve({ messageId, code: error?.code })
    }))
  }

  async message (topic, payload) {
    const event = await this.expect('message')
    assert.equal(event.topic, topic)
    assert.ok(event.payload.equals(Buffer.from(payload)), `${event.payload.subarray(0, 300)}`)
    return event.packet
  }

  error (...words) { return this.message(this.channel, error(...words)) }

  async quiet () {
    const marker = this.user.message(`marker ${this.sent++}`)
    await Promise.all([this.publish(this.user.inbox, marker), this.message(this.user.inbox, marker)])
  }

  // By force: 4.3.7 never forgets a QoS 2 message that was refused with a 5.0 reason code, and an
  // ordinary end waits for it.
  async end () {
    const closed = this.client.connected ? once(this.client, 'close') : null
    this.client.end(true)
    await closed
  }
}

const servers = {}
before(async () => {
  servers.plain = await new Server().start(false)
  servers.tls = await new Server().start(true)
})
after(async () => {
  for (const server of Object.values(servers)) await server.stop()
})

for (const [name, library] of [['mqtt.js 4.3.7', mqtt4], ['mqtt.js 5', mqtt]]) {
  for (const version of [4, 5]) {
    for (const transport of ['tcp', 'ws', 'tls', 'wss']) {
      describe(`${name}, MQTT ${version === 4 ? '3.1.1' : '5.0'}, ${transport}`, () => {
        const open = []
        const server = () => transport === 'tls' || transport === 'wss' ? servers.tls : servers.plain

        const phone = (user, options) => {
          const one = new Phone(library, server(), transport, version, user, options)
          open.push(one)
          return one
        }

        const listening = async (user, options) => {
          const one = phone(user, options)
          await one.expect('in')
          const [granted] = await one.subscribe(user.inbox, 2)
          assert.equal(granted.qos, 2)
          return one
        }

        const story = (title, body) => test(title, { timeout: 60_000 }, async () => {
          try {
            await body()
          } finally {
            for (const one of open.splice(0)) await one.end()
          }
        })

        story('friends write to each other', async () => {
          const [alice, bob] = server().friends()
          const [a, b] = [await listening(alice), await listening(bob)]
          for (const qos of [0, 1, 2]) {
            const body = alice.message(['hello', 'ü☃😀', qos])
            await a.publish(bob.inbox, body, qos)
            const packet = await b.message(bob.inbox, body)
            assert.deepEqual([packet.qos, packet.retain, packet.dup], [qos, false, false])
            await b.publish(alice.inbox, bob.message(qos), qos)
            await a.message(alice.inbox, bob.message(qos))
          }
          await a.quiet()
          await b.quiet()
        })

        story('a stranger is refused and stays connected', async () => {
          const bob = server().user()
          const stranger = server().user()
          const [b, s] = [await listening(bob), await listening(stranger)]
          for (const qos of [0, 1, 2]) {
            const { messageId, code } = await s.publish(bob.inbox, stranger.message(), qos)
            assert.equal(messageId === null, qos === 0)
            if (version === 5 && qos > 0) assert.equal(code, 0x87)
            await s.error('friends', 'not friends with the receiver', messageId)
          }
          await s.quiet()
          await b.quiet()
          server().befriend(bob, stranger)
          await s.publish(bob.inbox, stranger.message('now'))
          await b.message(bob.inbox, stranger.message('now'))
        })

        story('a block takes effect while both are connected', async () => {
          const [alice, bob] = server().friends()
          const [a, b] = [await listening(alice), await listening(bob)]
          await a.publish(bob.inbox, alice.message('before'))
          await b.message(bob.inbox, alice.message('before'))
          server().block(bob, alice)
          const { messageId } = await a.publish(bob.inbox, alice.message('blocked'))
          await a.error('friends', 'not friends with the receiver', messageId)
          await b.quiet()
          server().block(bob, alice, 0)
          await a.publish(bob.inbox, alice.message('after'))
          await b.message(bob.inbox, alice.message('after'))
        })

        story('the second phone logs the first one out', async () => {
          const alice = server().user()
          const first = await listening(alice)
          const second = await listening(alice, { device: 'new' })
          await first.message(alice.channel(), logout)
          if (version === 5) {
            const { packet } = await first.expect('disconnect')
            assert.equal(packet.reasonCode, 0x8E)
          }
          await first.expect('closed')
          await second.quiet()
        })

        story('an app with the will topic willtopic gets in', async () => {
          const [alice, bob] = server().friends()
          const will = { topic: 'willtopic', payload: 'gone', qos: 0, retain: false }
          const [a, b] = [await listening(alice, { will }), await listening(bob)]
          await a.publish(bob.inbox, alice.message())
          await b.message(bob.inbox, alice.message())
        })

        story('a wrong token gets 5 (0x87), a foreign client id 4 (0x85)', async () => {
          const [alice, bob] = server().friends()
          const wrong = await phone(alice, { password: 'wrong' }).expect('error')
          assert.equal(wrong.error.code, version === 5 ? 0x87 : 5)
          const foreign = await phone(alice, { clientId: bob.clientId() }).expect('error')
          assert.equal(foreign.error.code, version === 5 ? 0x85 : 4)
        })

        story('an inbox of another cannot be read', async () => {
          const [alice, bob] = server().friends()
          const a = await listening(alice)
          // Whether a refused filter is an error or a code of the grant differs between versions.
          await a.subscribe(bob.inbox).catch(() => {})
          await a.error(bob.inbox, 'not authorized', null, 'authorizeSubscribe')
          await a.quiet()
        })

        story('a picture passes byte for byte', async () => {
          const [alice, bob] = server().friends()
          const [a, b] = [await listening(alice), await listening(bob)]
          const body = alice.message(Array.from({ length: 300_000 }, (_, n) => n % 256))
          assert.ok(body.length > 1_000_000)
          await a.publish(bob.inbox, body)
          await b.message(bob.inbox, body)
        })

        story('two hundred in order and once', async () => {
          const [alice, bob] = server().friends()
          const [a, b] = [await listening(alice), await listening(bob)]
          const sent = Array.from({ length: 200 }, (_, n) => a.publish(bob.inbox, alice.message(n)))
          for (let n = 0; n < 200; n++) await b.message(bob.inbox, alice.message(n))
          await Promise.all(sent)
          await b.quiet()
        })
      })
    }
  }
}
