// The program of docs/clients.md, as it stands there: against a server that restarts, one that refuses, and a full disk.

import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { createServer } from 'node:net'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterEach, beforeEach, test } from 'node:test'
import mqtt from 'mqtt'
import { Server } from './server.mjs'

const here = dirname(fileURLToPath(import.meta.url))
const page = readFileSync(resolve(here, '../../docs/clients.md'), 'utf8')
const [, code] = page.match(/\n## mqtt\.js\n.*?```js\n(.*?)```/s)
const patienceMs = 30_000
const staysAwayMs = 4_000 // more than two pauses after a lost connection

const freePort = () => new Promise((resolve) => {
  const socket = createServer().listen(0, '127.0.0.1', () => {
    const { port } = socket.address()
    socket.close(() => resolve(port))
  })
})

// The program as a process in `folder`; `says` waits for a line.
class Program {
  constructor (token, more = []) {
    this.text = ''
    this.process = spawn(process.execPath, [...more, 'chat.mjs'], {
      cwd: folder,
      env: { PATH: process.env.PATH, JAM_TOKEN: token, JAM_URL: `mqtt://127.0.0.1:${port}` }
    })
    for (const stream of [this.process.stdout, this.process.stderr]) stream.on('data', (some) => { this.text += some })
    this.ended = new Promise((done) => this.process.once('exit', done))
  }

  async says (pattern, times = 1) {
    const count = () => this.text.split(pattern).length - 1
    for (const end = Date.now() + patienceMs; count() < times; await new Promise((done) => setTimeout(done, 20))) {
      assert.ok(Date.now() < end, `no "${pattern}" in:\n${this.text}`)
      assert.equal(this.process.exitCode, null, `it has ended:\n${this.text}`)
    }
  }

  async end () {
    this.process.kill('SIGKILL')
    await this.ended
  }
}

let server, port, folder, one, two, running
beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'jam-mqttjs-chat-'))
  mkdirSync(join(folder, 'node_modules'))
  symlinkSync(join(here, 'node_modules/mqtt'), join(folder, 'node_modules/mqtt'))
  writeFileSync(join(folder, 'chat.mjs'), code)
  port = await freePort()
  server = await new Server().start(false, `127.0.0.1:${port}`)
  ;[one, two] = server.friends()
  assert.deepEqual([one.id, two.id], ['1', '2'])
})
afterEach(async () => {
  await running.end()
  await server.stop()
  rmSync(folder, { recursive: true })
})

const kept = () => readFileSync(join(folder, 'messages.jsonl'), 'utf8').split('\n').filter(Boolean).map((line) => JSON.parse(line))

// Another client, which says all that it has to and waits until it has been heard.
async function client (options, then) {
  const connection = await mqtt.connectAsync(`mqtt://127.0.0.1:${port}`, { reconnectPeriod: 0, ...options })
  try { await then(connection) } finally { await connection.endAsync() }
}

const asFriend = (then) => client({ clientId: two.clientId(), username: two.id, password: two.token }, then)
const message = (id) => JSON.stringify({ from: two.id, id, content: `the ${id}` })

test('it goes on when the server has been away', async () => {
  running = new Program(one.token)
  await running.says('sent to 2')
  await server.end()
  await running.says('ECONNREFUSED')
  await server.start(false, `127.0.0.1:${port}`)
  server.tell(one.id, 'after the restart')
  await running.says('2: after the restart')
})

test('it keeps a message that comes twice once', async () => {
  running = new Program(one.token)
  await running.says('sent to 2')
  await asFriend(async (friend) => {
    for (const id of ['first', 'first', 'second']) await friend.publishAsync(one.inbox, message(id), { qos: 1 })
  })
  await running.says('2: the second')
  assert.deepEqual(kept().map(({ id }) => id), ['first', 'second'])
  await running.end()
  running = new Program(one.token)
  await running.says('sent to 2')
  await asFriend((friend) => friend.publishAsync(one.inbox, message('first'), { qos: 1 }))
  await asFriend((friend) => friend.publishAsync(one.inbox, message('third'), { qos: 1 }))
  await running.says('2: the third')
  assert.deepEqual(kept().map(({ id }) => id), ['first', 'second', 'third'])
})

test('it acknowledges nothing that it has not stored', async () => {
  const full = "import fs from 'node:fs'; import { syncBuiltinESMExports as sync } from 'node:module'; fs.fsyncSync = () => { throw new Error('the disk is full') }; sync()"
  running = new Program(one.token, ['--import', `data:text/javascript,${encodeURIComponent(full)}`])
  await running.says('sent to 2')
  await asFriend((friend) => friend.publishAsync(one.inbox, message('first'), { qos: 1 }))
  assert.notEqual(await running.ended, 0)
  assert.match(running.text, /the disk is full/)
  rmSync(join(folder, 'messages.jsonl'))
  running = new Program(one.token)
  await running.says('2: the first')
})

test('a line that a crash has torn is forgotten, and its message comes again', async () => {
  const whole = `${message('first')}\n`
  writeFileSync(join(folder, 'messages.jsonl'), Buffer.concat([Buffer.from(whole + message('second').slice(0, 20)), Buffer.of(0xC3)]))
  running = new Program(one.token)
  await running.says('sent to 2')
  await asFriend(async (friend) => {
    for (const id of ['first', 'second']) await friend.publishAsync(one.inbox, message(id), { qos: 1 })
  })
  await running.says('2: the second')
  assert.deepEqual(kept().map(({ id }) => id), ['first', 'second'])
})

test('it says which rule has refused a message', async () => {
  server.block(two, one)
  running = new Program(one.token)
  await running.says('not sent to 2: not friends with the receiver')
})

test('a refusal ends it', async () => {
  running = new Program('not the token')
  assert.equal(await running.ended, 0)
  assert.match(running.text, /Not authorized/)
})

for (const device of ['new', 'node']) {
  test(`it stays away from the device "${device}" that has come`, async () => {
    running = new Program(one.token)
    await running.says('sent to 2')
    await client({ clientId: one.clientId(device), username: one.id, password: one.token, protocolVersion: 5 }, async (other) => {
      let closed = false
      other.on('close', () => { closed = true })
      assert.equal(await running.ended, 0)
      await new Promise((resolve) => setTimeout(resolve, staysAwayMs))
      assert.equal(closed, false)
    })
  })
}
