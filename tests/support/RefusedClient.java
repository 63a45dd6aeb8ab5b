import java.util.Map;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** Asks for transactions, which the broker at BOOTSTRAP does not serve, and prints how that ended and after how many ms. */
public final class RefusedClient {
    public static void main(String[] arguments) {
        long started = System.nanoTime();
        String outcome;
        try {
            outcome = transactions(arguments[0]);
        } catch (Exception error) {
            outcome = error.getClass().getSimpleName();
        }
        System.out.println(outcome + " " + (System.nanoTime() - started) / 1_000_000);
    }

    private static String transactions(String bootstrap) {
        Map<String, Object> settings = Map.of("bootstrap.servers", bootstrap, "transactional.id", "refused");
        try (var producer = new KafkaProducer<>(settings, new ByteArraySerializer(), new ByteArraySerializer())) {
            producer.initTransactions();
            return "none";
        }
    }
}
