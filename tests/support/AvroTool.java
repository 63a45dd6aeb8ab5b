import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.util.HexFormat;
import java.util.StringJoiner;
import org.apache.avro.NameValidator;
import org.apache.avro.Schema;
import org.apache.avro.SchemaCompatibility;
import org.apache.avro.SchemaNormalization;

/**
 * What Avro's Java makes of schemas, one answer line for each line asked; words are separated by tabs.
 *
 *   parse SCHEMA           -> ok TEXT PARSING_CANONICAL_FORM FINGERPRINT (CRC-64-AVRO, in hexadecimal) | invalid
 *   pair READER WRITER     -> ok KIND LOCATION MESSAGE KIND LOCATION MESSAGE ... | invalid | ambiguous
 */
public final class AvroTool {
    public static void main(String[] arguments) throws Exception {
        var reader = new BufferedReader(new InputStreamReader(System.in, "UTF-8"));
        var out = new java.io.PrintStream(System.out, true, "UTF-8");
        for (String line; (line = reader.readLine()) != null; ) {
            String[] words = line.split("\t");
            out.println(words[0].equals("parse") ? parse(words[1]) : pair(words[1], words[2]));
        }
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
