// The two files that are checked in are what the sources make, small enough, and clean by TypeScript and Biome.

import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { bundle, web } from './bundle.mjs'

const here = dirname(fileURLToPath(import.meta.url))
const MAX_BYTES = 12_000

test('jam.js and jam.d.ts are what their sources make', async () => {
  for (const [name, text] of Object.entries(await bundle())) {
    assert.ok(text === readFileSync(join(web, name), 'utf8'), `${name} is stale: npm run bundle --prefix tests/jamjs`)
  }
})

test('jam.js has at most 12 KB after gzip -9, and imports nothing', () => {
  const script = readFileSync(join(web, 'jam.js'))
  const { length } = execFileSync('gzip', ['-9', '-c'], { input: script }) // of Node.js's own there are several, which differ
  assert.ok(length <= MAX_BYTES, `${length} bytes`)
  assert.doesNotMatch(script.toString(), /\bimport\b|\beval\b|innerHTML|new Function/)
})

test('Biome finds nothing', () => {
  const biome = createRequire(import.meta.url).resolve('@biomejs/biome/bin/biome')
  execFileSync(process.execPath, [biome, 'lint', `--config-path=${here}`, '--error-on-warnings', join(web, 'jam'), here, join(here, '../browser/jam-page.mjs'), join(here, '../browser/jam-tabs.test.mjs')], { cwd: here, stdio: 'pipe', encoding: 'utf8' })
})
