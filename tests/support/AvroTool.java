import java.io.BufferedReader;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStreamReader;
import java.util.HexFormat;
import java.util.StringJoiner;
import org.apache.avro.NameValidator;
import org.apache.avro.Schema;
import org.apache.avro.SchemaCompatibility;
import org.apache.avro.SchemaNormalization;
import org.apache.avro.generic.GenericDatumReader;
import org.apache.avro.generic.GenericDatumWriter;
import org.apache.avro.io.DecoderFactory;
import org.apache.avro.io.EncoderFactory;
import org.apache.avro.util.RandomData;

/**
 * What Avro's Java makes of schemas, one answer line for each line asked; words are separated by tabs.
 *
 *   parse SCHEMA           -> ok TEXT PARSING_CANONICAL_FORM FINGERPRINT (CRC-64-AVRO, in hexadecimal) | invalid
 *   pair READER WRITER     -> ok KIND LOCATION MESSAGE KIND LOCATION MESSAGE ... | invalid | ambiguous
 *   make WRITER COUNT SEED -> ok DATUM DATUM ... | invalid
 *   read READER WRITER DATUM DATUM ... -> ok RESULT RESULT ... | invalid
 *                             A result is the reader's datum of what was read, or ! and why it could not be.
 *
 * Datums are an x and their bytes in hexadecimal.
 */
public final class AvroTool {
    public static void main(String[] arguments) throws Exception {
        var reader = new BufferedReader(new InputStreamReader(System.in, "UTF-8"));
        var out = new java.io.PrintStream(System.out, true, "UTF-8");
        for (String line; (line = reader.readLine()) != null; ) {
            String[] words = line.split("\t");
            out.println(switch (words[0]) {
                case "parse" -> parse(words[1]);
                case "pair" -> pair(words[1], words[2]);
                case "make" -> make(words[1], Integer.parseInt(words[2]), Long.parseLong(words[3]));
                default -> read(words);
            });
        }
    }

    private static String written(Schema schema, Object datum) throws IOException {
        var bytes = new ByteArrayOutputStream();
        var encoder = EncoderFactory.get().directBinaryEncoder(bytes, null);
        new GenericDatumWriter<Object>(schema).write(datum, encoder);
        encoder.flush();
        return "x" + HexFormat.of().formatHex(bytes.toByteArray());
    }

    private static String make(String writer, int count, long seed) {
        var answer = new StringJoiner("\t").add("ok");
        try {
            Schema schema = schema(writer);
            for (Object datum : new RandomData(schema, count, seed)) {
                answer.add(written(schema, datum));
            }
        } catch (RuntimeException | IOException | StackOverflowError error) {
            return "invalid";
        }
        return answer.toString();
    }

    private static String read(String[] words) {
        Schema reader;
        Schema writer;
        try {
            reader = schema(words[1]);
            writer = schema(words[2]);
        } catch (RuntimeException error) {
            return "invalid";
        }
        var answer = new StringJoiner("\t").add("ok");
        for (int index = 3; index < words.length; index++) {
            String result;
            try {
                byte[] bytes = HexFormat.of().parseHex(words[index].substring(1));
                var decoder = DecoderFactory.get().binaryDecoder(bytes, null);
                Object datum = new GenericDatumReader<Object>(writer, reader).read(null, decoder);
                result = decoder.isEnd() ? written(reader, datum) : "!bytes are left";
            } catch (RuntimeException | IOException | StackOverflowError error) {
                result = "!" + error.toString().replaceAll("\\s", " ");
            }
            answer.add(result);
        }
        return answer.toString();
    }

    private static Schema schema(String text) {
        return new Schema.Parser(NameValidator.STRICT_VALIDATOR).parse(text);
    }

    private static String parse(String text) {
        try {
            Schema schema = schema(text);
            byte[] fingerprint = SchemaNormalization.parsingFingerprint("CRC-64-AVRO", schema);
            return String.join("\t", "ok", schema.toString(), SchemaNormalization.toParsingForm(schema),
                HexFormat.of().formatHex(fingerprint));
        } catch (RuntimeException | StackOverflowError | java.security.NoSuchAlgorithmException error) {
            return "invalid";
        }
    }

    private static String pair(String reader, String writer) {
        Schema readers;
        Schema writers;
        try {
            readers = schema(reader);
            writers = schema(writer);
        } catch (RuntimeException error) {
            return "invalid";
        }
        try {
            var answer = new StringJoiner("\t").add("ok");
            var result = SchemaCompatibility.checkReaderWriterCompatibility(readers, writers).getResult();
            for (SchemaCompatibility.Incompatibility one : result.getIncompatibilities()) {
                answer.add(one.getType().toString()).add(one.getLocation()).add(one.getMessage());
            }
            return answer.toString();
        } catch (RuntimeException error) {
            return "ambiguous";
        }
    }
}
