// What is not ours is what npm has, and is declared.

import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { markupFaults } from './browser.mjs'
import { bundle, web } from './bundle.mjs'

const here = dirname(fileURLToPath(import.meta.url))
const vendor = join(web, 'vendor')

test('every file of others is npm\'s, byte by byte, with the version and integrity that are written down', () => {
  const rows = readFileSync(join(vendor, 'README.md'), 'utf8').split('\n').filter((line) => /^\| `/.test(line))
  const declared = rows.map((row) => row.split('|').map((cell) => cell.trim().replaceAll('`', '')))
  const files = readdirSync(vendor).filter((name) => name.endsWith('.js'))
  assert.deepEqual(declared.map(([, file]) => file), files)
  const { packages } = JSON.parse(readFileSync(join(here, 'package-lock.json'), 'utf8'))
  for (const [, file, name, version, path, integrity, licence] of declared) {
    assert.ok(readFileSync(join(vendor, file)).equals(readFileSync(join(here, 'node_modules', name, path))), file)
    const locked = packages[`node_modules/${name}`]
    assert.deepEqual([locked.version, locked.integrity], [version, integrity])
    assert.ok(licence.startsWith(locked.license))
  }
})

test('chat.js is what its sources make', async () => {
  assert.ok(readFileSync(join(web, 'chat.js'), 'utf8') === await bundle(), 'it is stale: npm run bundle --prefix tests/browser')
})

test('no source of the page makes markup of text', () => {
  for (const name of readdirSync(join(web, 'chat'))) {
    assert.doesNotMatch(readFileSync(join(web, 'chat', name), 'utf8'), /innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b|new Function/i, name)
  }
})

test('html-validate finds nothing in the document', async () => {
  assert.deepEqual(await markupFaults(readFileSync(join(web, 'index.html'), 'utf8')), [])
})
