// The programs of docs/clients.md as they stand there: the first one and the one with encryption, on pages of two friends.

import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { after, before, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { Server } from '../mqttjs/server.mjs'

const here = dirname(fileURLToPath(import.meta.url))
const [, chapter] = readFileSync(join(here, '../../docs/clients.md'), 'utf8').split('\n## jam.js\n')
const programs = [...chapter.matchAll(/^```js\n(.*?)^```$/gms)].map(([, program]) => program)
const first = programs.find((program) => program.includes('jam.send('))
const encrypted = programs.find((program) => program.includes('crypto.subtle'))
const waitMs = 30_000

/** What a browser has and Node.js has not. */
const page = (host) => `
import 'fake-indexeddb/auto'
import WebSocket from 'ws'
globalThis.WebSocket = WebSocket
globalThis.location = { protocol: 'http:', host: '${host}' }
`

let server
before(async () => { server = await new Server().start() })
after(() => server.stop())

/** The program's lines on a page of its own, until there are so many. */
async function run (name, program, lines) {
  const file = join(here, `${name}-${process.pid}.tmp.mjs`) // beside node_modules
  const script = `${page(`127.0.0.1:${server.ports.ws}`)}\n${program.replace(/^import.*$/m, "const { Jam } = await import('../../crates/server/web/jam.js')")}`
  writeFileSync(file, script)
  const child = spawn(process.execPath, [file], { env: { PATH: process.env.PATH } })
  let text = ''
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (some) => { text += some })
  try {
    for (const end = Date.now() + waitMs; text.split('\n').length <= lines; await new Promise((done) => setTimeout(done, 20))) {
      assert.ok(Date.now() < end && child.exitCode === null, `${name} has said:\n${text}`)
    }
    return text.trimEnd().split('\n')
  } finally {
    child.kill('SIGKILL')
    rmSync(file)
  }
}

const as = (user, friend, program) => program.replace("user: '1', token: 'secret'", `user: '${user.id}', token: '${user.token}'`).replace("send('2'", `send('${friend.id}'`)

test('five lines to a first message', async () => {
  assert.equal(first.trim().split('\n').length, 5)
  assert.ok(readFileSync(join(here, '../../README.md'), 'utf8').includes(`\`\`\`js\n${first}\`\`\``), 'the README has the same lines')
  const [ann, ben] = server.friends()
  const [said, heard] = await Promise.all([run('ann', as(ann, ben, first), 2), run('ben', as(ben, ann, first), 2)])
  for (const [lines, other, self] of [[said, ben, ann], [heard, ann, ben]]) assert.deepEqual(lines.sort(), [`${other.id}: Hello`, `${self.id}: Hello`].sort())
})

test('the hooks for encryption: the friend reads it, and the server has not seen it', async () => {
  const [ann, ben] = server.friends()
  const program = (user, friend, more) => `
const key = crypto.subtle.importKey('raw', new Uint8Array(32).fill(7), 'AES-GCM', false, ['encrypt', 'decrypt'])
const keyOf = () => key
const { Jam } = await import('../../crates/server/web/jam.js')
${as(user, friend, encrypted)}
jam.on('message', ({ detail }) => console.log(detail.kind + ': ' + detail.content))
jam.on('update', ({ detail }) => console.log(detail.state))
await jam.start()
${more}`
  const without = program(ben, ann, '').replace(', encode, decode', '')
  const send = `await jam.send('${ben.id}', 'secret words')`
  const [, seen] = await Promise.all([run('sealed', program(ann, ben, send), 2), run('unsealed', without, 1)])
  assert.match(seen[0], /^other: \{"iv":/)
  assert.doesNotMatch(seen[0], /secret words/)
  const [, read] = await Promise.all([run('sealed', program(ann, ben, send), 2), run('reader', program(ben, ann, ''), 1)])
  assert.deepEqual(read, ['text: secret words'])
})
