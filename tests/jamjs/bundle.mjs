// Makes crates/server/web/jam.js and jam.d.ts of the sources in crates/server/web/jam: `npm run bundle --prefix tests/jamjs`.
// Both are checked in, so that `cargo build` needs no npm; bundle.test.mjs fails when they are stale.

import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'
import { minify } from 'terser'

const here = dirname(fileURLToPath(import.meta.url))
export const web = join(here, '../../crates/server/web')
const banner = '// jam-mqtt, MIT OR Apache-2.0'

/**
 * Properties of its own objects, which are shortened as well. None of them is public, nor written by IndexedDB, nor told to another tab, nor a browser's;
 * nor is any of them made of a string. bundle.test.mjs compares the file with its sources at work.
 */
const INTERNAL = ['acknowledge', 'acknowledged', 'alone', 'back', 'begin', 'binary', 'catchUp', 'claim', 'clientId', 'codes', 'connected', 'disconnected', 'dup', 'ended', 'failures', 'filters', 'flight', 'follow', 'hear', 'isNews', 'item', 'keepFriends', 'lead', 'left', 'link', 'list', 'mirror', 'opened', 'orders', 'outbox', 'packet', 'packetId', 'post', 'puback', 'qos', 'queued', 'receipt', 'receive', 'received', 'refusal', 'sessionPresent', 'tell', 'timer', 'topic', 'transact', 'varint', 'properties', 'take', 'number', 'string', 'property', 'how', 'load', 'leave', 'end', 'ping', 'show', 'retain', 'change', 'queue', 'newest', 'after', 'connection', 'keepAlive', 'sessionExpiry', 'receiveMaximum', 'maximumPacketSize'].sort()

/** The two files' content by their names. Throws what TypeScript finds wrong. */
export async function bundle () {
  const { outputFiles: [script] } = await build({
    entryPoints: [join(web, 'jam/jam.js')], bundle: true, minify: true, format: 'esm', target: 'es2022', charset: 'utf8', legalComments: 'none', write: false,
    mangleProps: new RegExp(`^(${INTERNAL.join('|')})$`)
  })
  // esbuild shortens the names of members, Terser what they do: either alone leaves 400 bytes more after gzip.
  const { code } = await minify(script.text, { module: true, ecma: 2020, compress: { passes: 4 }, format: { preamble: banner } })
  return { 'jam.js': `${code}\n`, 'jam.d.ts': types() }
}

function types () {
  const folder = mkdtempSync(join(tmpdir(), 'jam-types-'))
  try {
    const typescript = createRequire(import.meta.url).resolve('typescript/package.json')
    execFileSync(process.execPath, [join(dirname(typescript), 'bin/tsc'), '-p', here, '--outDir', folder], { encoding: 'utf8' })
    // TypeScript repeats the comments of the types that it has made of them.
    return readFileSync(join(folder, 'jam.d.ts'), 'utf8').replace(/^\/\*\*(?:(?!\*\/).)*@typedef.*?\*\/\n/gms, '')
  } catch (error) {
    throw new Error(error.stdout || error.message)
  } finally {
    rmSync(folder, { recursive: true })
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  for (const [name, text] of Object.entries(await bundle())) writeFileSync(join(web, name), text)
}
