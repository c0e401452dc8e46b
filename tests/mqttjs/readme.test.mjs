// The README's program, as it stands there, against a server that restarts and one that refuses.

import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { createServer } from 'node:net'
import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { after, before, test } from 'node:test'
import { Server } from './server.mjs'

const here = dirname(fileURLToPath(import.meta.url))
const program = join(here, `readme-${process.pid}.tmp.mjs`) // beside node_modules, where `mqtt` is found
const patienceMs = 30_000

const freePort = () => new Promise((resolve) => {
  const socket = createServer().listen(0, '127.0.0.1', () => {
    const { port } = socket.address()
    socket.close(() => resolve(port))
  })
})

// The program as a process; `says` waits for a line.
class Program {
  constructor (port, token) {
    this.text = ''
    this.process = spawn(process.execPath, [program], {
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
}

let server
before(() => {
  const [, code] = readFileSync(resolve(here, '../../README.md'), 'utf8').match(/### mqtt\.js\n\n```js\n(.*?)```/s)
  writeFileSync(program, code)
})
after(() => rmSync(program, { force: true }))

test('it goes on when the server has been away', async () => {
  const port = await freePort()
  server = await new Server().start(false, `127.0.0.1:${port}`)
  const [one] = server.friends()
  assert.equal(one.id, '1')
  const running = new Program(port, one.token)
  try {
    await running.says('sent to 2')
    await server.end()
    await running.says('ECONNREFUSED')
    await server.start(false, `127.0.0.1:${port}`)
    server.tell(one.id, 'after the restart')
    await running.says('2: after the restart')
  } finally {
    running.process.kill()
    await running.ended
    await server.stop()
  }
})

test('a refusal ends it', async () => {
  const port = await freePort()
  server = await new Server().start(false, `127.0.0.1:${port}`)
  try {
    server.friends()
    const refused = new Program(port, 'not the token')
    assert.equal(await refused.ended, 0)
    assert.match(refused.text, /Not authorized/)
  } finally {
    await server.stop()
  }
})
